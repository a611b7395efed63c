"""The timer service: sleeps until the next stored timer is due, then has the manager fire it.

Timers are ticks of schedules, delays, timeouts and deadlines.
"""

import math
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
                upcoming = await self._timers.upcoming()
                if await self._fire(upcoming):
                    # More may be due than one query returns.
                    continue
            except (Unavailable, ServiceStopped) as error:
                log.debug("timers.fire_postponed", reason=str(error))
                await anyio.sleep(_RETRY_SECONDS)
                continue
            with anyio.move_on_after(self._pause(upcoming)):
                await self._wake.wait()

    async def _check_clock(self) -> None:
        """Make due what was set while the clock was ahead."""
        now, since = self._now(), anyio.current_time() - self._ticks_checked_at
        set_back = self._latest is not None and now < self._latest - _BACK
        if not set_back and since < self._settings.ticks_seconds:
            self._latest = now
            return
        mended = await self._timers.mend()
        if mended:
            log.warning("timers.mended", timers=mended)
        for tick, due_at in find_misset_ticks(await self._timers.ticks(), now):
            log.warning("timers.tick_moved", was=str(tick.due_at), due_at=str(due_at))
            await self._timers.move(tick, due_at)
        self._latest, self._ticks_checked_at = now, anyio.current_time()

    async def _fire(self, upcoming: list[Timer]) -> bool:
        now = self._now()
        due = tuple(timer for timer in upcoming if timer.due_at <= now)
        if due:
            await self._commands.execute(FireTimers(due))
        return bool(due)

    def _pause(self, upcoming: list[Timer]) -> float:
        if not upcoming:
            return self._settings.safety_seconds
        seconds = (upcoming[0].due_at - self._now()).total_seconds()
        return min(max(seconds, 0), self._settings.safety_seconds)
