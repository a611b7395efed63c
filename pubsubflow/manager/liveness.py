"""Liveness: heartbeats of workers, and the uptime of the servers without which none is heard."""

import time
from collections.abc import Callable

import anyio
import structlog

from pubsubflow.bus import Bus, Message
from pubsubflow.errors import Unavailable
from pubsubflow.model.wire.heartbeat import Heartbeat, decode_heartbeat
from pubsubflow.store.batches.manager_transaction import ManagerTransaction
from pubsubflow.store.clock import StoreClock
from pubsubflow.store.database import Connection, Database, translate_errors

log = structlog.get_logger()

_SAVE_SECONDS = 0.5
"""Pause in which the heartbeats of many workers gather."""
_GONE_SECONDS = 7.0
"""After which a worker of another daemon counts as gone, which takes no share of the tasks."""
_WATCH_SECONDS = 1.5
_ANSWER_SECONDS = 1.5
_FRESH_SECONDS = 1.0
"""A server that has answered within this time gets no question when the other one does."""
_JUMP_SECONDS = 2.0
"""Less is the time that a query takes, or a clock that is corrected slowly."""


class Heartbeats:
    """The heartbeats of workers that are not saved yet.

    Attributes:
        latest: Worker → its last one.
        own: The worker of this daemon, if its manager hands tasks to it directly.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self.latest: dict[str, Heartbeat] = {}
        self.own = ""
        self._shared: dict[str, float] = {}  # queue → when another worker of it was heard
        self._received = anyio.Event()

    def receive(self, message: Message) -> None:
        """Take a heartbeat."""
        heartbeat = decode_heartbeat(message.data)
        self.latest[heartbeat.worker] = heartbeat
        self._received.set()
        if heartbeat.worker != self.own:
            self._shared.update(dict.fromkeys(heartbeat.queues, self._monotonic()))

    def is_shared(self, queue: str) -> bool:
        """Return whether a worker of another daemon serves a queue."""
        heard_at = self._shared.get(queue)
        return heard_at is not None and self._monotonic() - heard_at < _GONE_SECONDS

    async def keep_saving(self, database: Database, uptime: "Uptime") -> None:
        """Save what is received, apart from the batches: a long one must silence no worker.

        Args:
            database: Where it is saved.
            uptime: Learns of what could not be saved.
        """
        due_at = 0.0
        while True:
            await self._received.wait()
            await anyio.sleep_until(due_at)
            self._received = anyio.Event()
            due_at = anyio.current_time() + _SAVE_SECONDS
            try:
                async with database.connection() as connection:
                    await self.save(connection)
            except Unavailable:
                # The silence of workers means nothing then.
                uptime.restart()
            else:
                uptime.note_store()

    async def save(self, connection: Connection) -> None:
        """Save them all; what Postgres refuses is dropped, for the next one comes by itself."""
        # In the order of workers: managers that save the same ones must not deadlock.
        beats = sorted(self.latest.values(), key=lambda beat: beat.worker)
        self.latest = {}
        rows = [
            (
                *(beat.worker, beat.host, beat.pid, beat.slots, beat.busy),
                *(",".join(beat.queues), beat.free_sync, beat.free_async),
                *(beat.version, beat.protocol),
                *(beat.memory, beat.cpu, beat.free_memory, beat.free_cpu),
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
        clock: The clock of Postgres, which is read as its answer.
        monotonic: The time, seconds.
    """

    def __init__(
        self,
        bus: Bus,
        clock: StoreClock | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock or StoreClock()
        self._monotonic = monotonic
        self._since = self._store_at = monotonic()
        self._ahead: float | None = None
        self._bus = bus
        bus.on_reconnect(self.restart)

    @property
    def seconds(self) -> float:
        """For how long both have been reachable; 0 while NATS is away."""
        return self._monotonic() - self._since if self._bus.connected else 0.0

    @property
    def unanswered_seconds(self) -> float:
        """How long ago both have answered."""
        return max(self._bus.unanswered_seconds, self._monotonic() - self._store_at)

    async def watch(self, database: Database) -> None:
        """Make sure every 1.5 s that both servers answer, and that this process runs.

        What hangs breaks no connection: a process or server that was stopped for a while, and goes
        on, has not heard the workers meanwhile. Answers to others count as well.

        Args:
            database: Postgres.
        """
        while True:
            before = self._monotonic()
            with anyio.move_on_after(_ANSWER_SECONDS) as limit:
                if self._bus.unanswered_seconds >= _FRESH_SECONDS:
                    await self._bus.flush()
                if before - self._store_at >= _FRESH_SECONDS:
                    await _read_clock(database, self._clock)
                    self.note_store()
            late = self._monotonic() - before > _ANSWER_SECONDS
            if limit.cancelled_caught or late:
                self.restart()
            pause = max(_WATCH_SECONDS - self.unanswered_seconds, _WATCH_SECONDS - _FRESH_SECONDS)
            before = self._monotonic()
            await anyio.sleep(pause)
            if self._monotonic() - before > pause + _ANSWER_SECONDS:
                self.restart()

    def note_store(self) -> None:
        """Note that Postgres has answered."""
        self._store_at = self._monotonic()

    def note_clock(self, seconds: float, read_at: float) -> None:
        """Note the time of Postgres, which is an answer of it; a jump is a break.

        After one forward all workers seem silent, until they are heard again.

        Args:
            seconds: Since 1970.
            read_at: When the question was sent, by the monotonic time.
        """
        now = self._store_at = self._monotonic()
        self._clock.set(seconds, (read_at + now) / 2)
        ahead = seconds - now
        if self._ahead is not None and abs(ahead - self._ahead) > _JUMP_SECONDS:
            log.warning("manager.clock_jumped", seconds=round(ahead - self._ahead, 3))
            self.restart()
        self._ahead = ahead

    def restart(self) -> None:
        """Note a break."""
        self._since = self._monotonic()


async def _read_clock(database: Database, clock: StoreClock) -> None:
    try:
        async with database.connection() as connection:
            await clock.read(connection)
    except Unavailable:
        await anyio.sleep_forever()  # the limit of time ends it
