"""The retention service: a pass now and then; of all daemons one at a time is at it."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from time import monotonic, perf_counter

import anyio
import structlog
from anyio import current_time
from anyio.abc import TaskStatus

from pubsubflow.bus import Bus
from pubsubflow.errors import Unavailable
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.retention.metrics import RetentionMetrics
from pubsubflow.retention.pruner import Pass, Pruner
from pubsubflow.services import run_until
from pubsubflow.store.slices import Removal
from pubsubflow.wakeup import Wakeup

log = structlog.get_logger()

_JUMP_SECONDS = 60.0
_DISTRUST_SECONDS = 3600.0


class SteadyClock:
    """Compares the pace of the database's clock with that of this process.

    A clock that is wrong for a moment must not make all data old.

    Args:
        clock: This process' clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._offset: float | None = None
        self._trusted_at = 0.0

    def is_steady(self, store_seconds: float) -> bool:
        """Return whether the clock was seen before, and has not jumped for an hour."""
        offset, before = store_seconds - self._clock(), self._offset
        self._offset = offset
        if before is None:
            return False
        if abs(offset - before) > _JUMP_SECONDS:
            log.warning("retention.clock_jumped", seconds=round(offset - before))
            self._trusted_at = self._clock() + _DISTRUST_SECONDS
        return self._clock() >= self._trusted_at


class RetentionService:
    """Removes what is old, now and then.

    Args:
        pruner: Makes the passes.
        every_seconds: Pause between two.
        bus: Announces that a DAG was deleted, whose runs go at once then; else in the next pass.

    Attributes:
        metrics: Its metrics.
    """

    def __init__(self, pruner: Pruner, every_seconds: float, bus: Bus | None = None) -> None:
        self._pruner = pruner
        self._bus = bus
        self._deleted = Wakeup()
        self._every_seconds = every_seconds
        self._clock = SteadyClock()
        self.metrics = RetentionMetrics()

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Prune until `stopping` is set."""
        async with AsyncExitStack() as stack:
            if self._bus is not None:
                subject = Subjects.DAG_DELETED
                subscription = await self._bus.subscribe(subject, self._deleted.notify)
                await stack.enter_async_context(subscription)
            # Cancelled in the middle of a pass as well: the next one goes on where it ended.
            await run_until(stopping, self._keep_pruning, task_status=task_status)

    async def _keep_pruning(self) -> None:
        next_at = current_time()
        while True:
            try:
                # Before its time only a deletion wakes it; nothing else is due by then.
                if current_time() < next_at:
                    await self._pruner.remove_deleted()
                else:
                    next_at = current_time() + self._every_seconds
                    if self._clock.is_steady(await self._pruner.read_clock()):
                        await self._prune()
            except Unavailable as error:
                log.warning("retention.postponed", reason=str(error))
            await self._deleted.wait(next_at - current_time())

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
