"""Answers what workers ask: code, large results, many events, connections' secrets.

Workers hold no connection to Postgres, and no key.
"""

from contextlib import suppress

import anyio
import msgspec
import structlog
from anyio.abc import TaskStatus
from msgspec import Raw

from pubsubflow.bus import Message
from pubsubflow.errors import ConfigError, LeaseLost, NotFound, Unavailable
from pubsubflow.manager.liveness import Vigil
from pubsubflow.model.wire.messages import encode
from pubsubflow.model.wire.worker_requests import (
    LOST,
    REFUSED,
    Ask,
    AskConnection,
    AskEvents,
    AskLease,
    AskResult,
    AskSource,
    AskSteps,
    Lease,
    Piece,
    RecordStep,
    decode_ask,
)
from pubsubflow.store.database import Database
from pubsubflow.store.read.worker_requests import Asked
from pubsubflow.store.secrets.connections import Connections

log = structlog.get_logger()

PIECE_BYTES = 512 * 1024
EVENTS_A_PIECE = 500
SILENT_SECONDS = 9.0
BEAT_SECONDS = 4.0
_NIL = b"\xc0"
_list = msgspec.msgpack.Decoder(list[Raw]).decode


class Answers:
    """A few tasks that answer questions side by side.

    Args:
        database: Postgres.
        vigil: Since when workers are heard.
        connections: Knows connections; tasks get none if left out.
        tasks: How many.
    """

    def __init__(
        self,
        database: Database,
        vigil: Vigil,
        *,
        connections: Connections | None = None,
        tasks: int = 3,
    ) -> None:
        self._asked = Asked(database)
        self._connections = connections
        self._vigil = vigil
        self._tasks = tasks
        self._send, self._receive = anyio.create_memory_object_stream[Message](100_000)

    def asked(self, message: Message) -> None:
        """Take a question; one that comes too late goes to another manager when asked again."""
        with suppress(anyio.ClosedResourceError):
            self._send.send_nowait(message)

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Answer until `stopping` is set."""
        async with self._send, self._receive, anyio.create_task_group() as group:
            for _ in range(self._tasks):
                group.start_soon(self._answer_all)
            task_status.started()
            await stopping.wait()
            group.cancel_scope.cancel()

    async def _answer_all(self) -> None:
        async for message in self._receive:
            try:
                piece = await self._answer(decode_ask(message.data))
            except Unavailable as error:
                self._vigil.restart()
                log.debug("manager.question_unanswered", reason=str(error))
                continue  # it is asked again
            except Exception as error:
                log.exception("manager.question_refused")
                piece = Piece(b"", 0, f"{type(error).__name__}: {error}")
            message.respond(encode(piece))

    async def _answer(self, ask: Ask) -> Piece:
        if isinstance(ask, AskSource):
            return _cut(await self._asked.source(ask.hash), ask.offset, f"no source {ask.hash}")
        if isinstance(ask, AskEvents):
            return await self._events(ask)
        if isinstance(ask, AskLease):
            return Piece(encode(await self._lease(ask)), 1)
        if isinstance(ask, AskSteps):
            steps = await self._asked.steps(ask.run, ask.node, ask.map_index)
            return _cut(encode(steps), ask.offset, "")
        if isinstance(ask, RecordStep | AskConnection):
            return await self._for_holder(ask)
        return _cut(await self._result(ask), ask.offset, "that task has no result")

    async def _for_holder(self, ask: RecordStep | AskConnection) -> Piece:
        """Answer a task that runs, and nobody else; with nothing while its row is to come."""
        try:
            if isinstance(ask, AskConnection):
                has_lease = await self._asked.has_lease(ask)
                return await self._connection(ask.name) if has_lease else Piece(b"", 0)
            step = await self._asked.record(ask)
        except LeaseLost as error:
            return Piece(b"", 0, f"{LOST}{error}")
        return Piece(b"", 0) if step is None else Piece(encode(step), 1)

    async def _connection(self, name: str) -> Piece:
        if self._connections is None:
            return Piece(b"", 0, f"{REFUSED}the manager knows no connections")
        try:
            return Piece(encode(await self._connections.read(name)), 1)
        except (NotFound, ConfigError) as error:
            return Piece(b"", 0, f"{REFUSED}{error}")

    async def _lease(self, ask: AskLease) -> Lease:
        holder = await self._asked.lease(ask)
        if holder is None:
            return Lease.VOID
        if holder.worker in (None, ask.worker) or holder.silent_seconds is None:
            return Lease.FREE
        # Just back, we have not heard from anybody yet: the holder may well live.
        heard = holder.silent_seconds < SILENT_SECONDS or self._vigil.seconds < BEAT_SECONDS
        return Lease.TAKEN if heard else Lease.FREE

    async def _events(self, ask: AskEvents) -> Piece:
        events, total = await self._asked.events(ask.run, ask.offset, EVENTS_A_PIECE)
        room = PIECE_BYTES
        pieces: list[Raw] = []
        for event in events:
            data = encode(event)
            if pieces and len(data) > room:
                break
            pieces.append(Raw(data))
            room -= len(data)
        return Piece(encode(pieces), total)

    async def _result(self, ask: AskResult) -> bytes | None:
        values = await self._asked.results(ask.run, ask.node, ask.map_index)
        if ask.map_index is None:
            value = encode([Raw(value or _NIL) for value in values])
        elif values:
            value = values[0] or _NIL
        else:
            return None
        if ask.element is None:
            return value
        elements = _list(value)
        return bytes(elements[ask.element]) if 0 <= ask.element < len(elements) else None


def _cut(data: bytes | None, offset: int, missing: str) -> Piece:
    if data is None:
        return Piece(b"", 0, missing)
    return Piece(data[offset : offset + PIECE_BYTES], len(data))
