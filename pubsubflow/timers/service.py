"""Ticks, delays and deadlines: sleeps until the next timer is due, then tells the manager."""

from collections.abc import Callable
from datetime import UTC, datetime

import anyio
import msgspec
import structlog
from anyio.abc import TaskStatus

from pubsubflow.bus import Bus
from pubsubflow.errors import ServiceStopped, Unavailable
from pubsubflow.model.wire.commands import Calls, Timer, TimersDue
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.timers import Timers

log = structlog.get_logger()


class ClockSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the clock works.

    Attributes:
        safety_seconds: How long it sleeps at most: the safety net for news that got lost.
    """

    safety_seconds: float = 30.0


class Clock:
    """The clock of one daemon. Several may run: whoever takes a timer's row acts on it.

    Args:
        timers: The stored timers.
        bus: Tells that other daemons set timers.
        calls: The manager.
        settings: See there.
        now: The time.
    """

    def __init__(
        self,
        *,
        timers: Timers,
        bus: Bus,
        calls: Calls,
        settings: ClockSettings | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._timers = timers
        self._bus = bus
        self._calls = calls
        self._settings = settings or ClockSettings()
        self._now = now
        self._wake = anyio.Event()

    def changed(self) -> None:
        """Timers were set: look again when the next is due."""
        self._wake.set()

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Fire timers until `stopping` is set."""
        subscription = await self._bus.subscribe(Subjects.TIMERS_CHANGED, lambda _: self.changed())
        async with subscription, anyio.create_task_group() as group:
            group.start_soon(self._tick)
            task_status.started()
            await stopping.wait()
            group.cancel_scope.cancel()

    async def _tick(self) -> None:
        while True:
            self._wake = anyio.Event()
            try:
                upcoming = await self._timers.upcoming()
                if await self._fire(upcoming):
                    continue
            except (Unavailable, ServiceStopped) as error:
                log.debug("clock.postponed", reason=str(error))
                await anyio.sleep(0.2)
                continue
            with anyio.move_on_after(self._pause(upcoming)):
                await self._wake.wait()

    async def _fire(self, upcoming: list[Timer]) -> bool:
        now = self._now()
        due = tuple(timer for timer in upcoming if timer.due_at <= now)
        if due:
            await self._calls.call(TimersDue(due))
        return bool(due)

    def _pause(self, upcoming: list[Timer]) -> float:
        if not upcoming:
            return self._settings.safety_seconds
        seconds = (upcoming[0].due_at - self._now()).total_seconds()
        return min(max(seconds, 0), self._settings.safety_seconds)
