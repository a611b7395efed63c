"""The timer service: sleeps until the next stored timer is due, then has the manager fire it.

Timers are ticks of schedules, delays, timeouts and deadlines.
"""

import math
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import anyio
import msgspec
import structlog
from anyio.abc import TaskStatus

from pubsubflow.bus import Bus
from pubsubflow.errors import ServiceStopped, Unavailable
from pubsubflow.model.wire.commands import CommandHandler, FireTimers, Timer
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.services import run_until
from pubsubflow.store.read.timers import Timers
from pubsubflow.timers.misset_ticks import find_misset_ticks

log = structlog.get_logger()

_RETRY_SECONDS = 0.2
_MOST = 500
_FRESH_SECONDS = 1.0
"""For how long what was read is fired from memory; runs that end delete their timers meanwhile."""
_LEAD_SECONDS = 0.02
"""How long before a timer is due the next ones are read, so that it does not wait for that."""
_BACK = timedelta(seconds=1)
"""Less is a clock that is corrected slowly."""


class TimerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the timer service.

    Attributes:
        safety_seconds: The longest sleep, in case a notification got lost.
        ticks_seconds: How often it is checked that no tick is too far ahead; always after the
            clock was set back.
    """

    safety_seconds: float = 30.0
    ticks_seconds: float = 600.0


class TimerService:
    """Fires timers in one daemon. Several may run: the manager fires each timer once.

    Args:
        timers: The stored timers.
        bus: Notifies of timers that other daemons set.
        commands: The manager.
        settings: The longest sleep.
        now: The time.
    """

    def __init__(
        self,
        *,
        timers: Timers,
        bus: Bus,
        commands: CommandHandler,
        settings: TimerSettings | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._timers = timers
        self._bus = bus
        self._commands = commands
        self._settings = settings or TimerSettings()
        self._now = now
        self._wake = anyio.Event()
        self._latest: datetime | None = None
        self._ticks_checked_at = -math.inf

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Fire timers until `stopping` is set."""
        subscription = await self._bus.subscribe(
            Subjects.TIMERS_CHANGED, lambda _: self._wake.set()
        )
        async with subscription:
            await run_until(stopping, self._keep_firing, task_status=task_status)

    async def _keep_firing(self) -> None:
        while True:
            # Before the query: a timer that is set during it wakes us at once.
            self._wake = anyio.Event()
            try:
                await self._check_clock()
                read_at = anyio.current_time()
                upcoming = await self._timers.upcoming(_MOST)
                await self._fire(deque(upcoming), read_at, more=len(upcoming) == _MOST)
            except (Unavailable, ServiceStopped) as error:
                log.debug("timers.fire_postponed", reason=str(error))
                await anyio.sleep(_RETRY_SECONDS)

    async def _check_clock(self) -> None:
        """Make due what was set while the clock was ahead."""
        now, since = self._now(), anyio.current_time() - self._ticks_checked_at
        if not self._is_set_back() and since < self._settings.ticks_seconds:
            self._latest = now
            return
        mended = await self._timers.mend()
        if mended:
            log.warning("timers.mended", timers=mended)
        for tick, due_at in find_misset_ticks(await self._timers.ticks(), now):
            log.warning("timers.tick_moved", was=str(tick.due_at), due_at=str(due_at))
            await self._timers.move(tick, due_at)
        self._latest, self._ticks_checked_at = now, anyio.current_time()

    def _is_set_back(self) -> bool:
        """Whether the clock was set back since it was checked."""
        return self._latest is not None and self._now() < self._latest - _BACK

    async def _fire(self, upcoming: deque[Timer], read_at: float, *, more: bool) -> None:
        """Fire timers when they are due, until they are to be read anew.

        Args:
            upcoming: The timers that are due next.
            read_at: When they were read.
            more: There are more than these.
        """
        fresh_until = read_at + min(_FRESH_SECONDS, self._settings.safety_seconds)
        while True:
            due = self._take_due(upcoming)
            if due:
                await self._commands.execute(FireTimers(due))
            left = fresh_until - anyio.current_time()
            if left <= 0 or self._wake.is_set() or self._is_set_back() or (more and not upcoming):
                return
            pause = 0.0 if due else self._pause(upcoming)
            if pause > left:
                await self._sleep(max(0.0, pause - _LEAD_SECONDS))
                return
            if pause:
                await self._sleep(pause)

    def _take_due(self, upcoming: deque[Timer]) -> tuple[Timer, ...]:
        now, due = self._now(), []
        while upcoming and upcoming[0].due_at <= now:
            due.append(upcoming.popleft())
        return tuple(due)

    async def _sleep(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self._wake.wait()

    def _pause(self, upcoming: deque[Timer]) -> float:
        if not upcoming:
            return self._settings.safety_seconds
        seconds = (upcoming[0].due_at - self._now()).total_seconds()
        return min(max(seconds, 0), self._settings.safety_seconds)
