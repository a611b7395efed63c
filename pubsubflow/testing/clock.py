"""A clock that goes on only when it is told to."""

import heapq
from datetime import UTC, datetime, timedelta
from itertools import count

import anyio
import anyio.lowlevel

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class VirtualClock:
    """A clock for tests, also as the context of a trigger.

    Args:
        start: Its first moment, with a zone; 2026-01-01 00:00 UTC when left out.
    """

    def __init__(self, start: datetime = BEGINNING) -> None:
        self._now = start
        self._alarms: list[tuple[datetime, int, anyio.Event]] = []
        self._numbers = count()

    def now(self) -> datetime:
        """Return the time."""
        return self._now

    async def sleep_until(self, moment: datetime) -> None:
        """Return when the clock has come to `moment`."""
        if moment > self._now:
            await self.alarm(moment).wait()
        else:
            await anyio.lowlevel.checkpoint()

    async def advance(self, by: timedelta | float) -> None:
        """Let time pass, from one sleeper's moment to the next.

        Whoever sleeps wakes at its own moment and goes on until it waits again, before time does.

        Args:
            by: A timedelta, or seconds.
        """
        target = self._now + (by if isinstance(by, timedelta) else timedelta(seconds=by))
        await anyio.wait_all_tasks_blocked()
        while (moment := self.next_alarm()) is not None and moment <= target:
            self.jump(moment)
            await anyio.wait_all_tasks_blocked()
        self.jump(target)

    def alarm(self, moment: datetime) -> anyio.Event:
        """Return an event that is set when the clock comes to `moment`."""
        event = anyio.Event()
        heapq.heappush(self._alarms, (moment, next(self._numbers), event))
        return event

    def next_alarm(self) -> datetime | None:
        """Return the moment for which somebody waits next."""
        return self._alarms[0][0] if self._alarms else None

    def jump(self, moment: datetime) -> None:
        """Set the clock forward at once and wake all whose moment has passed."""
        self._now = max(self._now, moment)
        while self._alarms and self._alarms[0][0] <= self._now:
            heapq.heappop(self._alarms)[2].set()


class JumpingClock(VirtualClock):
    """A clock on which nobody waits: to sleep sets it forward."""

    async def sleep_until(self, moment: datetime) -> None:
        """Set the clock to `moment` and return."""
        self.jump(moment)
        await anyio.lowlevel.checkpoint()
