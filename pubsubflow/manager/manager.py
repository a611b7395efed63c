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
import msgspec
import structlog
from anyio.abc import TaskStatus

from pubsubflow.bus import STREAM_IN, Bus, Delivery, Message, Puller
from pubsubflow.errors import ServiceStopped, Unavailable
from pubsubflow.manager.answers import Answers
from pubsubflow.manager.fold import Fold, Folded
from pubsubflow.manager.inputs import Item
from pubsubflow.manager.news import publish_news
from pubsubflow.model.calls import Call
from pubsubflow.model.messages import (
    Heartbeat,
    Subjects,
    decode_gone,
    decode_heartbeat,
    decode_log,
    decode_result,
    decode_started,
)
from pubsubflow.store.database import TRANSIENT, Connection, Database, begin
from pubsubflow.store.fold import FoldTransaction
from pubsubflow.store.queries import SQL

log = structlog.get_logger()

_DECODERS: dict[str, Callable[[bytes], Any]] = {
    Subjects.RESULT: decode_result,
    Subjects.STARTED: decode_started,
    Subjects.LOG: decode_log,
    Subjects.GONE: decode_gone,
}


class ManagerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the manager works.

    Attributes:
        batch: Messages in one transaction at most.
        credit: Messages from the bus held at once at most.
        too_early_seconds: After how long a result that overtook another one comes again.
    """

    batch: int = 500
    credit: int = 2000
    too_early_seconds: float = 0.05


class Manager:
    """One manager; several share the work through one JetStream consumer.

    Args:
        database: Postgres; one connection is held while the manager runs.
        bus: NATS.
        settings: See there.
        listens: Whether it takes messages from the bus; without, it only carries out calls.
    """

    def __init__(
        self,
        *,
        database: Database,
        bus: Bus,
        settings: ManagerSettings | None = None,
        listens: bool = True,
    ) -> None:
        self._database = database
        self._bus = bus
        self._settings = settings or ManagerSettings()
        self._listens = listens
        self._fold = Fold()
        self._waiting: deque[Item] = deque()
        self._wake = anyio.Event()
        self._heartbeats: dict[str, Heartbeat] = {}
        self._accepting = False
        self._puller = Puller(
            bus,
            stream=STREAM_IN,
            durable="managers",
            filter_subject="psf.in.>",
            deliver=self._deliver,
        )

    async def call(self, call: Call) -> Any:
        """Carry out a call; see `pubsubflow.model.calls.Calls`."""
        if not self._accepting:
            raise ServiceStopped("manager")
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._put(
            Item(
                call,
                done=partial(_settle, answered),
                failed=partial(_settle_error, answered),
            )
        )
        return await answered

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

    async def _listen(self, group: anyio.abc.TaskGroup, stopping: anyio.Event) -> None:
        answers = Answers(self._database)
        await group.start(answers.run, stopping)
        await self._bus.subscribe(Subjects.HEARTBEAT, self._heard, queue="managers")
        await self._bus.subscribe(Subjects.ASK, answers.asked, queue="managers")
        self._puller.credit(self._settings.credit)
        await group.start(partial(self._puller.run, stopping))

    def _heard(self, message: Message) -> None:
        heartbeat = decode_heartbeat(message.data)
        self._heartbeats[heartbeat.worker] = heartbeat
        self._wake.set()

    def _deliver(self, delivery: Delivery) -> None:
        kind = ".".join(delivery.subject.split(".", 3)[:3])
        try:
            what = _DECODERS[kind](delivery.data)
        except (KeyError, msgspec.DecodeError) as error:
            what = error
        self._put(
            Item(
                what,
                done=lambda _: self._done(delivery.ack),
                failed=lambda _: self._done(delivery.term),
                later=lambda: self._done(partial(delivery.nak, self._settings.too_early_seconds)),
                subject=delivery.subject,
                payload=delivery.data,
            )
        )

    def _done(self, answer: Callable[[], None]) -> None:
        answer()
        self._puller.credit(1)

    def _put(self, item: Item) -> None:
        self._waiting.append(item)
        self._wake.set()

    async def _fold_until(self, stopping: anyio.Event, *, task_status: TaskStatus[None]) -> None:
        """Fold on one connection after the other; one that breaks is replaced."""
        batch: list[Item] = []
        delay = 0.0
        while True:
            try:
                async with self._database.connection() as connection:
                    if delay:
                        log.info("manager.store_back")
                    delay = 0.0
                    task_status.started()
                    await self._fold_on(connection, batch, stopping)
                    return
            except Unavailable as error:
                if not delay:
                    log.warning("manager.store_away", reason=str(error))
                if stopping.is_set():
                    _give_up(batch, error)
                    return
                delay = min(delay * 2 or 0.02, 0.5)
                await anyio.sleep(delay)

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
            while self._waiting and len(batch) < self._settings.batch:
                batch.append(self._waiting.popleft())
            if batch:
                await self._fold_batch(connection, batch)
                batch.clear()

    async def _save_heartbeats(self, connection: Connection) -> None:
        if self._heartbeats:
            beats = sorted(self._heartbeats.values(), key=lambda beat: beat.worker)
            self._heartbeats = {}
            await FoldTransaction(connection).write(
                "save_heartbeats", [(b.worker, b.host, b.pid, b.slots, b.busy) for b in beats]
            )

    async def _fold_batch(self, connection: Connection, batch: Sequence[Item]) -> None:
        """Fold a batch; if it cannot be, fold its items one by one to find the culprit."""
        for item in batch:
            if isinstance(item.what, Exception):
                await self._bury(connection, item, item.what)
        batch = [item for item in batch if not isinstance(item.what, Exception)]
        try:
            await self._commit(connection, batch)
        except Unavailable:
            raise
        except Exception as error:
            if connection.is_closed():
                raise
            if len(batch) > 1:
                log.warning("manager.batch_split", items=len(batch), error=repr(error))
                for item in batch:
                    await self._fold_batch(connection, [item])
                return
            log.exception("manager.item_refused", subject=batch[0].subject)
            await self._bury(connection, batch[0], error)

    async def _commit(self, connection: Connection, batch: Sequence[Item]) -> None:
        if not batch:
            return
        while True:
            try:
                async with begin(connection):
                    folded = await self._fold.fold(batch, FoldTransaction(connection))
                break
            except TRANSIENT as error:
                log.info("manager.started_over", reason=type(error).__name__)
        self._fold.committed(folded)
        self._publish(folded)
        for item in batch:
            _tell(item)

    def _publish(self, folded: Folded) -> None:
        """Hand out tasks and tell the news; what gets lost here, the sweeper makes good."""
        try:
            publish_news(self._bus, folded)
        except Unavailable as error:
            log.warning("manager.not_published", reason=str(error))

    async def _bury(self, connection: Connection, item: Item, error: Exception) -> None:
        """Keep an item that cannot be folded as a dead letter, and tell its sender."""
        if item.payload:
            await connection.execute(
                SQL["record_dead_letter"], item.subject, item.payload, f"{error!r}"
            )
            log.error("manager.dead_letter", subject=item.subject, reason=repr(error))
        item.failed(error)


def _tell(item: Item) -> None:
    if item.error is not None:
        item.failed(item.error)
    elif item.postponed and item.later is not None:
        item.later()
    else:
        item.done(item.answer)


def _give_up(batch: Sequence[Item], error: Unavailable) -> None:
    """Answer callers at the end; messages stay on the bus for the next manager."""
    for item in batch:
        if not item.payload:
            item.failed(error)


def _settle(answered: asyncio.Future[Any], answer: Any) -> None:
    if not answered.done():
        answered.set_result(answer)


def _settle_error(answered: asyncio.Future[Any], error: Exception) -> None:
    if not answered.done():
        answered.set_exception(error)
