"""The manager: takes what arrives, folds it batch by batch, and tells the world after the commit.

While one transaction runs, messages gather; the next takes all of them, up to 500. There is no
timer and nothing polls.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import anyio
import structlog
from anyio.abc import TaskStatus

from pubsubflow.bus import STREAM_IN, Bus, Delivery, Message, Puller
from pubsubflow.errors import (
    BusUnavailable,
    PubsubflowError,
    ServiceStopped,
    StoreUnavailable,
    Unavailable,
)
from pubsubflow.manager.batch import Fold, Folded
from pubsubflow.manager.inbox import Item, failure_of, give_up, item_of, settle, settle_error, tell
from pubsubflow.manager.liveness import Vigil
from pubsubflow.manager.metrics import ManagerFigures
from pubsubflow.manager.outbox.publish import publish_news
from pubsubflow.manager.outbox.spans import record_spans
from pubsubflow.manager.settings import ManagerSettings
from pubsubflow.manager.throughput import Pace, fill
from pubsubflow.manager.worker_requests import Answers
from pubsubflow.model.traces import CURRENT, NoTracing, Tracing
from pubsubflow.model.wire.backlog import Backlog
from pubsubflow.model.wire.commands import Call, LookForEvents, Timer, TimersDue
from pubsubflow.model.wire.messages import Heartbeat, ResultMessage, decode_heartbeat, encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.database import (
    TRANSIENT,
    Connection,
    Database,
    begin,
    printable,
    translated,
)
from pubsubflow.store.manager_transaction import FoldTransaction
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.secrets.connections import Connections

log = structlog.get_logger()

_ACK_WAIT_SECONDS = 3.0
_LONGEST_PAUSE_SECONDS = 0.5
_PATIENCE_SECONDS = 1.0
_LOOKS = 1000
_AWAY = "Postgres is away: try again, under the same id or key if there is one"


class Manager:
    """One manager; several share the work through one JetStream consumer.

    Args:
        database: Postgres; one connection is held while the manager runs.
        bus: NATS.
        settings: See there.
        listens: Whether it takes messages from the bus; without, it only carries out calls.
        fold: What decides; a new one unless given.
        connections: Where tasks' connections are; there are none if left out.
        figures: What it counts; new ones unless given.
        tracing: Who collects traces; nobody unless given.
    """

    def __init__(
        self,
        *,
        database: Database,
        bus: Bus,
        settings: ManagerSettings | None = None,
        listens: bool = True,
        fold: Fold | None = None,
        connections: Connections | None = None,
        figures: ManagerFigures | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._database = database
        self._bus = bus
        self._connections = connections
        self._settings = settings or ManagerSettings()
        self._listens = listens
        self._tracing = tracing or NoTracing()
        self._fold = fold or Fold(tracing=self._tracing)
        self._vigil = Vigil(bus)
        self._waiting: deque[Item] = deque()
        self.figures = figures or ManagerFigures()
        self.figures.watch(self._waiting)
        self._pace = Pace()
        self._pause = 0.0
        self._away_since: float | None = None
        self._wake = anyio.Event()
        self._heartbeats: dict[str, Heartbeat] = {}
        self._accepting = False
        self._puller = Puller(
            bus,
            stream=STREAM_IN,
            durable="managers",
            filter_subject="psf.in.>",
            deliver=self._deliver,
            ack_wait_seconds=_ACK_WAIT_SECONDS,
        )

    async def call(self, call: Call) -> Any:
        """Carry out a call; see `pubsubflow.model.wire.commands.Calls`."""
        if not self._accepting:
            raise ServiceStopped("manager")
        if self._impatient:
            raise StoreUnavailable(_AWAY)
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._put(
            Item(
                call,
                done=partial(settle, answered),
                failed=partial(settle_error, answered),
                trace=CURRENT.get(),
            )
        )
        return await answered

    def backlog(self) -> Backlog:
        """Return what was called for here and is not folded yet."""
        return self._pace.backlog(self._waiting, away=self._impatient)

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Fold until `stopping` is set and what waits by then is folded."""
        self._accepting = True
        async with anyio.create_task_group() as group:
            folding = anyio.Event()
            await group.start(self._fold_until, folding)
            if self._listens:
                await self._listen(group, stopping)
            task_status.started()
            await stopping.wait()
            self._accepting = False
            folding.set()
            self._wake.set()
        give_up(self._waiting)

    async def _listen(self, group: anyio.abc.TaskGroup, stopping: anyio.Event) -> None:
        answers = Answers(self._database, self._vigil, connections=self._connections)
        await group.start(answers.run, stopping)
        await group.start(self._hear, Subjects.ASK, answers.asked, stopping)
        await group.start(self._hear, Subjects.HEARTBEAT, self._heard, stopping)
        self._puller.credit(self._settings.credit)
        await group.start(partial(self._puller.run, stopping))

    async def _hear(
        self,
        subject: str,
        handler: Callable[[Message], None],
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None],
    ) -> None:
        """Share a subject with the other managers until `stopping` is set."""
        async with await self._bus.subscribe(subject, handler, queue="managers"):
            task_status.started()
            await stopping.wait()

    def _heard(self, message: Message) -> None:
        heartbeat = decode_heartbeat(message.data)
        self._heartbeats[heartbeat.worker] = heartbeat
        self._wake.set()

    def _deliver(self, delivery: Delivery) -> None:
        seconds = self._settings.too_early_seconds
        self._put(item_of(delivery, self._done, too_early_seconds=seconds))

    def _done(self, answer: Callable[[], None]) -> None:
        try:
            answer()
        except BusUnavailable as error:
            log.warning("manager.not_acknowledged", reason=str(error))  # it comes again by itself
        self._puller.credit(1)

    def _put(self, item: Item) -> None:
        self._waiting.append(item)
        self._wake.set()

    async def _fold_until(self, stopping: anyio.Event, *, task_status: TaskStatus[None]) -> None:
        """Fold on one connection after the other; one that breaks is replaced."""
        batch = self._pace.batch
        ready: Callable[[], None] = task_status.started
        while True:
            try:
                async with self._database.connection() as connection:
                    await self._greet(connection)
                    ready()
                    ready = _already
                    await self._fold_on(connection, batch, stopping)
                    return
            except Unavailable as error:
                self._vigil.restart()
                if self._away_since is None:
                    self._away_since = anyio.current_time()
                    log.warning("manager.store_away", reason=str(error))
                if stopping.is_set():
                    give_up(batch)
                    return
                self._pause = min(self._pause * 2 or 0.02, _LONGEST_PAUSE_SECONDS)
                await anyio.sleep(self._pause)
                self._hold(batch)
                self._hold(self._waiting)

    async def _greet(self, connection: Connection) -> None:
        """Make sure that a connection works; its few statements are planned once for all."""
        await connection.execute(SQL["plan_once"])
        if self._away_since is not None:
            seconds = round(anyio.current_time() - self._away_since, 3)
            log.info("manager.store_back", away_seconds=seconds)
        self._away_since, self._pause = None, 0.0

    @property
    def _impatient(self) -> bool:
        """Whether the store is away for so long that nobody should wait for it."""
        since = self._away_since
        return since is not None and anyio.current_time() - since > _PATIENCE_SECONDS

    def _hold(self, items: list[Item] | deque[Item]) -> None:
        """Keep messages from being delivered to others, and let callers go after a while."""
        if self._pause == _LONGEST_PAUSE_SECONDS and self._bus.connected:
            for item in items:
                if item.hold is not None:
                    item.hold()
        if self._impatient:
            waiting = list(items)
            items.clear()
            items.extend(item for item in waiting if item.from_bus)
            for item in waiting:
                if not item.from_bus:
                    item.failed(StoreUnavailable(_AWAY))

    async def _fold_on(
        self, connection: Connection, batch: list[Item], stopping: anyio.Event
    ) -> None:
        while True:
            if not batch and not self._waiting and not self._heartbeats:
                if stopping.is_set():
                    return
                self._wake = anyio.Event()
                await self._wake.wait()
            await self._save_heartbeats(connection)
            fill(batch, self._waiting, self._settings)
            await self._bury_unreadable(connection, batch)
            if batch:
                await self._fold_batch(connection, batch)

    async def _save_heartbeats(self, connection: Connection) -> None:
        if self._heartbeats:
            beats = sorted(self._heartbeats.values(), key=lambda beat: beat.worker)
            self._heartbeats = {}
            rows = [(b.worker, b.host, b.pid, b.slots, b.busy) for b in beats]
            try:
                with translated():
                    await FoldTransaction(connection).write("save_heartbeats", rows)
            except Unavailable:
                raise
            except Exception:
                log.exception("manager.heartbeats_refused", workers=[beat.worker for beat in beats])

    async def _fold_batch(self, connection: Connection, batch: list[Item]) -> None:
        """Fold a batch and empty it; if it cannot be, fold its items one by one.

        What is done leaves the batch at once: the rest is folded on the next connection when
        this one breaks.
        """
        self._pace.begin()
        try:
            since = anyio.current_time()
            folded = await self._commit(connection, batch)
        except Unavailable:
            for item in batch:
                item.tried = True
            raise
        except Exception as error:
            if len(batch) == 1:
                log.exception("manager.item_refused", **batch[0].names())
                await self._refuse(connection, batch[0], error)
                batch.clear()
                return
            log.warning("manager.batch_split", items=len(batch), error=repr(error))
            while batch:
                await self._fold_batch(connection, batch[:1])
                del batch[0]
            return
        done = self._pace.folded(batch)
        self._committed(folded, done)
        self.figures.committed(folded, len(done), anyio.current_time() - since)

    async def _commit(self, connection: Connection, batch: Sequence[Item]) -> Folded:
        while True:
            try:
                with translated():
                    async with begin(connection):
                        timed = self._database.figures.statement_seconds.observe
                        folded = await self._fold.fold(batch, FoldTransaction(connection, timed))
            except TRANSIENT as error:
                log.info("manager.started_over", reason=type(error).__name__)
            else:
                return folded

    def _committed(self, folded: Folded, done: Sequence[Item]) -> None:
        self._fold.committed(folded)
        self._publish(folded)
        record_spans(self._tracing, folded.ledger)
        for item in done:
            if item.postponed and not item.from_bus:
                self._put(item)
            else:
                tell(item)
        self._look_next(folded)

    def _look_next(self, folded: Folded) -> None:
        """Let tasks look for events, in a transaction of its own; the sweeper finds lost ones."""
        places = sorted(set(folded.ledger.looks))
        for first in range(0, len(places), _LOOKS):
            call = LookForEvents(tuple(places[first : first + _LOOKS]))
            self._put(Item(call, done=_already, failed=_already))

    def _publish(self, folded: Folded) -> None:
        """Hand out tasks and tell the news; what gets lost here, the sweeper makes good."""
        try:
            publish_news(self._bus, folded)
        except Unavailable as error:
            log.warning("manager.not_published", reason=str(error))

    async def _bury_unreadable(self, connection: Connection, batch: list[Item]) -> None:
        for item in batch.copy():
            if isinstance(item.what, Exception):
                await self._refuse(connection, item, item.what)
                batch.remove(item)

    async def _refuse(self, connection: Connection, item: Item, error: Exception) -> None:
        """Keep an item that cannot be folded as a dead letter, and tell its sender.

        A result's task fails, or it would be handed out again and again; a timer is forgotten, or
        the clock would call for ever.
        """
        if isinstance(item.what, TimersDue):
            await self._refuse_timers(connection, item.what.timers, error)
            item.done(None)
            return
        if item.subject:
            await self._bury(connection, (item.letter, item.subject, item.payload), error)
            if isinstance(item.what, ResultMessage):
                self._waiting.appendleft(failure_of(item.what, error))
        item.failed(error)

    async def _refuse_timers(
        self, connection: Connection, timers: Sequence[Timer], error: Exception
    ) -> None:
        if len(timers) > 1:
            for timer in timers:
                alone = Item(TimersDue((timer,)), done=_already, failed=_already)
                await self._fold_batch(connection, [alone])
            return
        for timer in timers:
            letter = ("message", f"timer.{timer.kind}", encode(timer))
            await self._bury(connection, letter, error)
            with translated():
                await connection.fetch(SQL["take_timers"], [timer.number])

    async def _bury(
        self, connection: Connection, letter: tuple[str, str, bytes], error: Exception
    ) -> None:
        kind, subject, payload = letter
        reason = str(error) if isinstance(error, PubsubflowError) else repr(error)
        row = (kind, subject, None, payload, printable(reason))
        with translated():
            await FoldTransaction(connection).write("record_dead_letters", [row])
        self.figures.buried(kind)
        log.error("manager.dead_letter", subject=subject, reason=reason)


def _already(_: object = None) -> None:
    """Do nothing: it was done before, or nobody waits for it."""
