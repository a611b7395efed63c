"""The retention service: a pass now and then; of all daemons one at a time is at it."""

from time import perf_counter

import anyio
import structlog
from anyio.abc import TaskStatus

from pubsubflow.errors import Unavailable
from pubsubflow.retention.metrics import RetentionMetrics
from pubsubflow.retention.pruner import Pass, Pruner
from pubsubflow.store.database import TRANSIENT_ERRORS
from pubsubflow.store.slices import Removal

log = structlog.get_logger()


class RetentionService:
    """Removes what is old, now and then.

    Args:
        pruner: Makes the passes.
        every_seconds: Pause between two.

    Attributes:
        metrics: Its metrics.
    """

    def __init__(self, pruner: Pruner, every_seconds: float) -> None:
        self._pruner = pruner
        self._every_seconds = every_seconds
        self.metrics = RetentionMetrics()

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Prune until `stopping` is set."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._keep_pruning)
            task_status.started()
            await stopping.wait()
            # In the middle of a pass as well: the next one goes on where it ended.
            group.cancel_scope.cancel()

    async def _keep_pruning(self) -> None:
        while True:
            await anyio.sleep(self._every_seconds)
            try:
                await self._prune()
            except (Unavailable, *TRANSIENT_ERRORS) as error:
                log.warning("retention.postponed", reason=str(error))

    async def _prune(self) -> None:
        since = perf_counter()
        done = await self._pruner.prune()
        if done is None:
            return
        seconds = perf_counter() - since
        self.metrics.pass_seconds.observe(seconds)
        self.metrics.held_slices = done.held
        removals = summed(done)
        self.metrics.removed(removals)
        if removals:
            rows = {each.table: each.rows for each in removals}
            log.info("retention.pruned", seconds=round(seconds, 3), rows=rows)


def summed(done: Pass) -> list[Removal]:
    """Return what a pass removed, a value for each table."""
    totals: dict[str, Removal] = {}
    for each in done.removals:
        known = totals.get(each.table, Removal(each.table, 0, 0))
        totals[each.table] = Removal(each.table, known.rows + each.rows, known.bytes + each.bytes)
    return [each for each in totals.values() if each.rows or each.bytes]
