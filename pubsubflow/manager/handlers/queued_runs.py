"""Handler that starts queued runs as the limits of runs allow."""

from collections.abc import Sequence

from pubsubflow.manager.handlers.handler import BatchContext, DagLocks, Handler
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.manager.schedules.backfills import Backfills
from pubsubflow.manager.schedules.queued_runs import QueuedRuns


class StartQueuedRunsHandler(Handler):
    """Starts queued runs; several requests of one batch are one."""

    def __init__(self, context: BatchContext) -> None:
        super().__init__(context)
        backfills = Backfills(
            context.uow,
            context.transaction,
            context.run_ids,
            scheduler=context.scheduler,
            conditions=context.dags.conditions,
        )
        self._queued = QueuedRuns(
            context.uow,
            context.transaction,
            context.specs,
            dags=context.dags,
            backfills=backfills,
        )

    async def resolve(self, items: Sequence[InboxItem]) -> None:
        """Wait for other managers that start queued runs."""
        del items
        await self._queued.lock()

    async def before_dags(self, items: Sequence[InboxItem], locks: DagLocks) -> None:
        """Choose the runs, and lock their DAGs."""
        del items
        locks.dags |= await self._queued.choose()

    async def on_dags(self, items: Sequence[InboxItem]) -> None:
        """Start the runs."""
        del items
        await self._queued.start()
