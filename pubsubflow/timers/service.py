"""The timer service: sleeps until the next stored timer is due, then has the manager fire it.

Timers are ticks of schedules, delays, timeouts and deadlines.
"""

from collections.abc import Callable
from datetime import UTC, datetime

import anyio
import msgspec
import structlog
from anyio.abc import TaskStatus

from pubsubflow.bus import Bus
from pubsubflow.errors import ServiceStopped, Unavailable
from pubsubflow.model.wire.commands import CommandHandler, FireTimers, Timer
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.read.timers import Timers

log = structlog.get_logger()

_RETRY_SECONDS = 0.2


class TimerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the timer service.

    Attributes:
        safety_seconds: The longest sleep, in case a notification got lost.
    """

    safety_seconds: float = 30.0


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
        async with subscription, anyio.create_task_group() as group:
            group.start_soon(self._keep_firing)
            task_status.started()
            await stopping.wait()
            group.cancel_scope.cancel()

    async def _keep_firing(self) -> None:
        while True:
            # Before the query: a timer that is set during it wakes us at once.
            self._wake = anyio.Event()
            try:
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
