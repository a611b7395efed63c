"""A watchdog: finds the trigger that blocks the event loop of a loop thread."""

import asyncio
import time
from collections.abc import Callable

from pubsubflow.triggerer.host.loop_thread import LoopThread, stack_of
from pubsubflow.triggerer.host.trigger_run import CURRENT, TriggerRun
from pubsubflow.triggerer.protocol import LoopBlocked

_CHECKS = 5
"""Checks in the time that a step may take: that is how exact the watchdog is."""


class Watchdog:
    """Checks a loop thread from another loop while that is busy, and sleeps while that sleeps.

    Args:
        thread: The loop thread.
        block_seconds, stuck_seconds: How long one step may take; see `TriggererSettings`.
        on_blocked: Called with a step that takes too long, and again if it does not end.
        on_unblocked: Called with the run whose step took too long and ended after all.
        clock: Seconds.
    """

    def __init__(
        self,
        thread: LoopThread,
        *,
        block_seconds: float,
        stuck_seconds: float,
        on_blocked: Callable[[LoopBlocked], None],
        on_unblocked: Callable[[TriggerRun], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._thread = thread
        self._block_seconds = block_seconds
        self._stuck_seconds = stuck_seconds
        self._interval_seconds = block_seconds / _CHECKS
        self._on_blocked = on_blocked
        self._on_unblocked = on_unblocked
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._step: asyncio.Handle | None = None
        self._since = 0.0
        self._reported_level = 0
        self._quiet_checks = 0

    def wake(self) -> None:
        """Start checking; called from the loop thread when its loop begins to work."""
        self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        if self._timer is None:
            self._quiet_checks = 0
            self._timer = self._loop.call_later(self._interval_seconds, self._check)

    def _check(self) -> None:
        self._timer = None
        found = self._thread.current_step()
        if found is None:
            self._set_step(None)
            self._quiet_checks += 1
            if self._quiet_checks > _CHECKS:
                # An idle host uses no CPU: the loop's next step wakes the watchdog.
                self._thread.watched = False
                return
        else:
            self._quiet_checks = 0
            step, frame = found
            if step is not self._step:
                self._set_step(step)
            else:
                self._report_if_slow(step, lambda: stack_of(frame))
        self._timer = self._loop.call_later(self._interval_seconds, self._check)

    def _set_step(self, step: asyncio.Handle | None) -> None:
        before = None if self._step is None else _run_of(self._step)
        if self._reported_level and before is not None:
            self._on_unblocked(before)
        self._step, self._since, self._reported_level = step, self._clock(), 0

    def _report_if_slow(self, step: asyncio.Handle, stack: Callable[[], str]) -> None:
        seconds = self._clock() - self._since
        level = (seconds >= self._block_seconds) + (seconds >= self._stuck_seconds)
        if level <= self._reported_level:
            return
        self._reported_level = level
        run = _run_of(step)
        trigger_ids, name = ((), "") if run is None else (run.trigger_ids, run.name)
        self._on_blocked(
            LoopBlocked(trigger_ids, name, round(seconds, 3), stack(), stuck=level > 1)
        )


def _run_of(step: asyncio.Handle) -> TriggerRun | None:
    """Return the run of a step, also of tasks and callbacks that a trigger made."""
    context = step._context  # type: ignore[attr-defined]  # noqa: SLF001
    found: TriggerRun | None = context.get(CURRENT)
    return found
