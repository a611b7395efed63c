"""Handlers of reports: attempts and their output, lost workers, triggers that fired."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from pubsubflow.manager.handlers.events import dead_event
from pubsubflow.manager.handlers.handler import Handler
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.manager.persistence.load import RunLocks
from pubsubflow.manager.unit_of_work import OutgoingMessage, UnitOfWork, WatchPosition
from pubsubflow.model.wire.commands import RecordEvents
from pubsubflow.model.wire.messages import (
    NO_NODE,
    NOT_MAPPED,
    FiredMessage,
    NewEvent,
    ResultMessage,
)

_decode = msgspec.msgpack.Decoder().decode


class ResultHandler(Handler):
    """Ends attempts of tasks."""

    async def before_runs(self, items: Sequence[InboxItem], locks: RunLocks) -> None:
        """Lock the tasks that ended, and for chained results those before them."""
        changes: list[tuple[int, str]] = []
        for item in items:
            message: ResultMessage = item.message
            locks.tasks.add((message.run, message.node, message.map_index))
            if message.after != NO_NODE:
                locks.tasks.add((message.run, message.after, NOT_MAPPED))
                locks.chained.append(message)
            if message.state:
                changes += [(message.run, change.name) for change in message.state]
        if changes:
            await self._transaction.write("prepare_state_values", changes)
            rows = await self._transaction.fetch_rows("lock_state_values", changes)
            versions = {(row["dag"], row["name"]): row["version"] for row in rows}
            self._uow.state.versions.update(versions)

    def apply(self, item: InboxItem) -> None:
        """End an attempt; a result that overtook the one before it comes again later."""
        if item.message.after != NO_NODE and is_early(item.message, self._uow):
            item.postponed = True
        else:
            self._context.lifecycle.attempt_ended(item.message)


def is_early(message: ResultMessage, uow: UnitOfWork) -> bool:
    """Whether a chained result overtook one before it, which is still to come.

    That one is live with the same delivery: later ones belong to another chain.
    """
    run = uow.runs.by_id.get(message.run)
    if run is None or (message.node, NOT_MAPPED) in run.live:
        return False
    for node in run.chain_before(message.node):
        task = run.live.get((node, NOT_MAPPED))
        if task is not None:
            foreign = task.chained and task.worker != message.worker
            return task.delivery == message.delivery and not foreign
    return False


class StartedHandler(Handler):
    """Notes which worker runs a task."""

    async def before_runs(self, items: Sequence[InboxItem], locks: RunLocks) -> None:
        """Lock the tasks that have started."""
        messages = [item.message for item in items]
        locks.tasks.update((each.run, each.node, each.map_index) for each in messages)

    def apply(self, item: InboxItem) -> None:
        """Note the worker of a task."""
        self._context.lifecycle.attempt_started(item.message)


class LogHandler(Handler):
    """Stores pieces of output, also of attempts that do not count: it did happen."""

    def apply(self, item: InboxItem) -> None:
        """Store a piece of output; Postgres stores no NUL."""
        text = item.message.text.replace("\x00", "\\u0000")
        self._uow.runs.output.append(replace(item.message, text=text))


class WorkerLostHandler(Handler):
    """Hands out again what no message covers of lost workers."""

    async def before_runs(self, items: Sequence[InboxItem], locks: RunLocks) -> None:
        """Delete the workers; lock the runs in which they had tasks without a message."""
        for item in items:
            # Its results came before in the stream, so they are applied already.
            await self._transaction.fetch("delete_worker", item.message.worker)
            rows = await self._transaction.fetch("find_chained_runs", item.message.worker)
            locks.runs.update(row["run"] for row in rows)

    def apply(self, item: InboxItem) -> None:
        """Hand out again the tasks of a worker."""
        self._context.lifecycle.worker_lost(item.message.worker)


class FiredHandler(Handler):
    """Completes waits by triggers, and records events of watched datasets."""

    async def resolve(self, items: Sequence[InboxItem]) -> None:
        """Put events to record in place of what triggers saw of watched datasets."""
        watched = [item for item in items if item.message.run < 0]
        dropped = await self._resolve_watched(watched) if watched else set()
        for item in items:
            # Whatever becomes of it: the triggerer only needs to know that it is durable. What is
            # dropped must not be acknowledged to its source: it comes again to another triggerer.
            reply = item.received.reply
            if reply and item not in dropped:
                self._uow.outbox.messages.append(OutgoingMessage(reply))

    async def _resolve_watched(self, items: Sequence[InboxItem]) -> set[InboxItem]:
        """Replace messages by their events, unless these are recorded already.

        Only the holder of the lease counts, so the position of a source never goes back.

        Returns:
            Those that are dropped, as their senders hold no lease of the watch any more.
        """
        dropped: set[InboxItem] = set()
        triggers = sorted({item.message.trigger for item in items})
        rows = await self._transaction.fetch("lock_watches", triggers)
        known = {row["id"]: row for row in rows}
        sequences = {row["id"]: row["sequence"] for row in rows}
        # By sequence, or an event that overtook another would void it.
        for item in sorted(items, key=lambda each: each.message.sequence):
            fired: FiredMessage = item.message
            row = known.get(fired.trigger)
            if row is None or row["epoch"] != fired.epoch:
                dropped.add(item)
                continue
            if fired.sequence <= sequences[fired.trigger]:
                continue
            sequences[fired.trigger] = fired.sequence
            self._uow.waits.watch_positions.append(
                WatchPosition(fired.trigger, fired.sequence, fired.position)
            )
            name = f"#{fired.sequence}" if fired.id is None else fired.id
            payload: Any = _decode(fired.payload)
            extra = payload if isinstance(payload, dict) else {"value": payload}
            event = NewEvent(row["uri"], extra, fired.partition, fired.time)
            key = f"watch:{fired.trigger}:{name}"
            if fired.rejected is not None:
                letter = dead_event(event, key, fired.trigger, fired.rejected)
                self._uow.outbox.dead_letters.append(letter)
                continue
            item.message = RecordEvents((event,), (key,), "watch")
        return dropped

    async def before_runs(self, items: Sequence[InboxItem], locks: RunLocks) -> None:
        """Lock the deferred tasks that wait for the triggers."""
        messages: list[FiredMessage] = [item.received for item in items if item.received.run >= 0]
        locks.tasks.update((each.run, each.node, each.map_index) for each in messages)
        locks.failed_triggers.update(each.trigger for each in messages if each.error is not None)

    def apply(self, item: InboxItem) -> None:
        """Complete a wait."""
        end = self._context.lifecycle.waits.trigger_fired(item.message)
        self._context.lifecycle.wait_ended(end)
