"""Handlers of backfills: begin, pause, resume and cancel them, and make their next runs."""

from collections.abc import Sequence
from typing import Any

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.manager.handlers.commands import DagCommandHandler
from pubsubflow.manager.handlers.handler import BatchContext, DagLocks, Handler
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.manager.schedules.backfills import Backfills
from pubsubflow.manager.working_state import LockedDag
from pubsubflow.model.wire.commands import Backfill, ChangeBackfill
from pubsubflow.store.batches.manager_transaction import Row


class BackfillHandler(DagCommandHandler):
    """Begins backfills of past ticks and of partitions."""

    async def carry_out(self, dag: LockedDag, item: InboxItem) -> Any:
        """Begin a backfill, and return its first runs.

        Raises:
            InvalidInput: The DAG has no timetable or no such partition, the params do not fit, or
                it would be too many runs.
        """
        command: Backfill = item.message
        item.ids = item.ids or [self._context.new_id()]
        backfills = _backfills(self._context)
        return await backfills.request(dag, command, item.ids[0], tried=item.tried)


class ChangeBackfillHandler(Handler):
    """Pauses, resumes and cancels backfills."""

    def __init__(self, context: BatchContext) -> None:
        super().__init__(context)
        self._dags: dict[InboxItem, int] = {}

    async def before_dags(self, items: Sequence[InboxItem], locks: DagLocks) -> None:
        """Lock the DAGs of the backfills, whether or not these are still there."""
        for item in items:
            row = await self._find(item.message)
            if row is None:
                item.error = NotFound("backfill", str(item.message.backfill_id))
            else:
                self._dags[item] = row["dag"]
        locks.dags.update(self._dags.values())

    async def on_dags(self, items: Sequence[InboxItem]) -> None:
        """Change the backfills one by one."""
        for item in items:
            # Read anew, now that no other transaction changes it.
            row = await self._find(item.message) if item in self._dags else None
            if row is None:
                item.error = item.error or NotFound("backfill", str(item.message.backfill_id))
                continue
            dag = self._uow.schedule.dags[row["dag"]]
            try:
                await _backfills(self._context).change(dag, row, item.message)
            except InvalidInput as error:
                item.error = error

    async def _find(self, command: ChangeBackfill) -> Row | None:
        rows = await self._transaction.fetch("find_backfill", command.backfill_id)
        return rows[0] if rows else None


class AdvanceBackfillsHandler(Handler):
    """Makes the next runs of backfills."""

    async def before_dags(self, items: Sequence[InboxItem], locks: DagLocks) -> None:
        """Lock the DAGs of the backfills."""
        locks.dags.update(dag for item in items for dag in item.message.dags)

    async def on_dags(self, items: Sequence[InboxItem]) -> None:
        """Count out runs that ended unnoticed; the backfills are advanced with what ends here."""
        for dag in sorted({dag for item in items for dag in item.message.dags}):
            if dag in self._uow.schedule.dags:
                await _backfills(self._context).settle(self._uow.schedule.dags[dag])


def _backfills(context: BatchContext) -> Backfills:
    return Backfills(
        context.uow,
        context.transaction,
        context.run_ids,
        scheduler=context.scheduler,
        conditions=context.dags.conditions,
    )
