"""Handlers of commands on events that checks hold."""

from collections.abc import Sequence

from pubsubflow.manager.handlers.handler import DagLocks, Handler
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.model.wire.commands import SettleHeldEvents
from pubsubflow.store.database import printable


class SettleHeldEventsHandler(Handler):
    """Releases, discards or checks again what people say."""

    async def before_dags(self, items: Sequence[InboxItem], locks: DagLocks) -> None:
        """Lock the DAGs that the events reach when they are released, checks among them."""
        wanted = sorted({event for item in items for event in item.message.events})
        rows = await self._transaction.fetch("find_dags_of_held_events", wanted)
        locks.dags.update(row["dag"] for row in rows)

    async def on_dags(self, items: Sequence[InboxItem]) -> None:
        """Carry out the commands one by one; answer with the ids of the events concerned."""
        for item in items:
            item.answer = await self._settle(item.message)

    async def _settle(self, command: SettleHeldEvents) -> list[str]:
        checks = self._context.dags.checks
        held = {row["id"]: str(row["event_id"]) for row in await checks.lock(command.events)}
        numbers, by, note = sorted(held), printable(command.by), printable(command.note)
        if command.action == "release":
            await checks.release(numbers, by, note)
        elif command.action == "discard":
            await checks.discard(numbers, by, note)
        else:
            numbers = await checks.repeat(numbers, command.check)
        return [held[number] for number in numbers]


class SweepChecksHandler(Handler):
    """Repairs what the end of checks has left behind."""

    async def before_dags(self, items: Sequence[InboxItem], locks: DagLocks) -> None:
        """Lock the DAGs of the checks, and those that the events reach that they hold."""
        dags = sorted({dag for item in items for dag in item.message.dags})
        locks.dags.update(dags)
        rows = await self._transaction.fetch("find_dags_of_checks", dags)
        locks.dags.update(row["dag"] for row in rows)

    async def on_dags(self, items: Sequence[InboxItem]) -> None:
        """Look at each check once."""
        for number in sorted({dag for item in items for dag in item.message.dags}):
            dag = self._uow.schedule.dags.get(number)
            if dag is not None:
                await self._context.dags.checks.sweep(dag)
