"""Liveness: heartbeats of workers, and the uptime of the servers without which none is heard."""

import time
from collections.abc import Callable

import structlog

from pubsubflow.bus import Bus, Message
from pubsubflow.errors import Unavailable
from pubsubflow.model.wire.heartbeat import Heartbeat, decode_heartbeat
from pubsubflow.store.database import Connection, translate_errors
from pubsubflow.store.manager_transaction import ManagerTransaction

log = structlog.get_logger()

_JUMP_SECONDS = 2.0
"""Less is the time that a query takes, or a clock that is corrected slowly."""


class Heartbeats:
    """The heartbeats of workers that are not saved yet.

    Attributes:
        latest: Worker → its last one.
    """

    def __init__(self) -> None:
        self.latest: dict[str, Heartbeat] = {}

    def receive(self, message: Message) -> None:
        """Take a heartbeat."""
        heartbeat = decode_heartbeat(message.data)
        self.latest[heartbeat.worker] = heartbeat

    async def save(self, connection: Connection) -> None:
        """Save them all; what Postgres refuses is dropped, for the next one comes by itself."""
        # In the order of workers: managers that save the same ones must not deadlock.
        beats = sorted(self.latest.values(), key=lambda beat: beat.worker)
        self.latest = {}
        rows = [
            (
                *(beat.worker, beat.host, beat.pid, beat.slots, beat.busy),
                *(",".join(beat.queues), beat.free_sync, beat.free_async),
            )
            for beat in beats
        ]
        try:
            with translate_errors():
                await ManagerTransaction(connection).write("save_heartbeats", rows)
        except Unavailable:
            raise
        except Exception:
            log.exception("manager.heartbeats_refused", workers=[beat.worker for beat in beats])


class Uptime:
    """Measures for how long both servers have been reachable without a break.

    A worker that was not heard meanwhile is silent; one that was not heard before may only have
    been unable to get through.

    Args:
        bus: NATS; a reconnect is a break.
        monotonic: The time, seconds.
    """

    def __init__(self, bus: Bus, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._since = monotonic()
        self._ahead: float | None = None
        self._bus = bus
        bus.on_reconnect(self.restart)

    @property
    def seconds(self) -> float:
        """For how long both have been reachable; 0 while NATS is away."""
        return self._monotonic() - self._since if self._bus.connected else 0.0

    def note_clock(self, seconds: float) -> None:
        """Note the time of Postgres; a jump of it is a break.

        After one forward all workers seem silent, until they are heard again.

        Args:
            seconds: Since 1970.
        """
        ahead = seconds - self._monotonic()
        if self._ahead is not None and abs(ahead - self._ahead) > _JUMP_SECONDS:
            log.warning("manager.clock_jumped", seconds=round(ahead - self._ahead, 3))
            self.restart()
        self._ahead = ahead

    def restart(self) -> None:
        """Note a break."""
        self._since = self._monotonic()
