"""Handlers of commands on dead letters: store one, redrive one, discard many."""

from collections.abc import Sequence

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.manager.handlers.handler import BatchContext, DagLocks, Handler
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.manager.schedules.redrive import Redrive
from pubsubflow.manager.unit_of_work import DeadLetter
from pubsubflow.model.wire.commands import DiscardDeadLetters, RedriveDeadLetter, StoreDeadLetter
from pubsubflow.store.batches.manager_transaction import Row


class StoreDeadLetterHandler(Handler):
    """Stores dead letters of outsiders."""

    def apply(self, item: InboxItem) -> None:
        """Store a dead letter."""
        command: StoreDeadLetter = item.message
        self._uow.outbox.dead_letters.append(
            DeadLetter(command.kind, command.subject, None, command.payload, command.reason)
        )


class DiscardDeadLettersHandler(Handler):
    """Discards dead letters."""

    async def resolve(self, items: Sequence[InboxItem]) -> None:
        """Discard those that are open, and answer with them."""
        for item in items:
            command: DiscardDeadLetters = item.received
            rows = await self._transaction.fetch("discard_dead_letters", list(command.dead_letters))
            # After a transaction that broke and got through they are not open any more.
            item.answer = (
                list(command.dead_letters) if item.tried else sorted(row["id"] for row in rows)
            )


class RedriveDeadLetterHandler(Handler):
    """Redrives dead letters: records their events, publishes messages again, makes runs."""

    def __init__(self, context: BatchContext) -> None:
        super().__init__(context)
        self._letters: dict[InboxItem, Row] = {}
        self._redrive = Redrive(
            context.uow,
            context.transaction,
            context.specs,
            scheduler=context.scheduler,
            admission=context.admission,
        )

    async def resolve(self, items: Sequence[InboxItem]) -> None:
        """Lock the dead letters; put events to record in place of those that have become some."""
        seen: set[int] = set()
        for item in items:
            command: RedriveDeadLetter = item.received
            if command.dead_letter in seen:
                item.postponed = True  # it is redriven by the time that this is tried again
                continue
            seen.add(command.dead_letter)
            try:
                letter = await self._redrive.lock(command)
            except (InvalidInput, NotFound) as error:
                item.error = error
                continue
            if command.events is None or command.dry_run:
                self._letters[item] = letter
            else:
                item.message = command.events

    async def before_dags(self, items: Sequence[InboxItem], locks: DagLocks) -> None:
        """Mark dead letters whose events were accepted; lock the DAGs of refused runs."""
        for item in items:
            if item.message is not item.received and item.error is None:
                await self._redrive.mark(item.received)
        letters = [self._letters[item] for item in items if item in self._letters]
        locks.dags.update(letter["dag"] for letter in letters if letter["dag"] is not None)

    async def on_dags(self, items: Sequence[InboxItem]) -> None:
        """Publish messages again, and make runs."""
        for item in items:
            letter = self._letters.get(item)
            if letter is None:
                continue
            await self._context.run_ids.reserve(self._transaction, 1)
            dag = self._uow.schedule.dags.get(letter["dag"] or 0)
            try:
                redrive = self._redrive.plan if item.received.dry_run else self._redrive.resend
                item.answer = await redrive(item.received, letter, dag)
            except InvalidInput as error:
                item.error = error
