"""Finds the trigger that holds up all others on its loop."""

import asyncio
import time
from collections.abc import Callable

from pubsubflow.triggerer.host.loop_thread import Lane, stack_of
from pubsubflow.triggerer.host.trigger_run import CURRENT, Feed
from pubsubflow.triggerer.protocol import Blocked

_LOOKS = 5
"""So often it looks while a step may take: that is how exact it is."""


class Watchdog:
    """Looks at a lane from another loop, while that does something; it sleeps when that sleeps.

    Args:
        lane: The lane.
        block_seconds, stuck_seconds: How long one step may take; see `TriggererSettings`.
        report: Told of a step that takes too long, and of one that does not end.
        returned: Told of the one that took too long and ended after all.
        clock: Seconds.
    """

    def __init__(
        self,
        lane: Lane,
        *,
        block_seconds: float,
        stuck_seconds: float,
        report: Callable[[Blocked], None],
        returned: Callable[[Feed], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lane = lane
        self._block_seconds = block_seconds
        self._stuck_seconds = stuck_seconds
        self._pause_seconds = block_seconds / _LOOKS
        self._report = report
        self._returned = returned
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._step: asyncio.Handle | None = None
        self._since = 0.0
        self._told = 0
        self._quiet = 0

    def wake(self) -> None:
        """Start looking; called from the lane's thread when its loop begins to work."""
        self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        if self._timer is None:
            self._quiet = 0
            self._timer = self._loop.call_later(self._pause_seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        found = self._lane.step()
        if found is None:
            self._turn_to(None)
            self._quiet += 1
            if self._quiet > _LOOKS:
                self._lane.watched = False  # its next step wakes us
                return
        else:
            self._quiet = 0
            step, frame = found
            if step is not self._step:
                self._turn_to(step)
            else:
                self._judge(step, lambda: stack_of(frame))
        self._timer = self._loop.call_later(self._pause_seconds, self._look)

    def _turn_to(self, step: asyncio.Handle | None) -> None:
        before = None if self._step is None else _feed_of(self._step)
        if self._told and before is not None:
            self._returned(before)
        self._step, self._since, self._told = step, self._clock(), 0

    def _judge(self, step: asyncio.Handle, stack: Callable[[], str]) -> None:
        seconds = self._clock() - self._since
        level = (seconds >= self._block_seconds) + (seconds >= self._stuck_seconds)
        if level <= self._told:
            return
        self._told = level
        feed = _feed_of(step)
        numbers, name = ((), "") if feed is None else (feed.numbers, feed.name)
        self._report(Blocked(numbers, name, round(seconds, 3), stack(), stuck=level > 1))


def _feed_of(step: asyncio.Handle) -> Feed | None:
    """Return whose step it is: also of tasks and callbacks that a trigger made."""
    context = step._context  # type: ignore[attr-defined]  # noqa: SLF001
    found: Feed | None = context.get(CURRENT)
    return found
