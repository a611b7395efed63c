"""Questions to the managers: the code of DAGs, results too large to travel, events."""

from collections import OrderedDict
from collections.abc import Callable

import anyio
import anyio.abc
import msgspec
import structlog

from pubsubflow.bus import Bus
from pubsubflow.errors import BusUnavailable
from pubsubflow.model.spec import SourceBundle
from pubsubflow.model.wire.messages import encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.model.wire.worker_requests import (
    Ask,
    AskLease,
    AskSource,
    Lease,
    Piece,
    decode_lease,
    decode_piece,
)

log = structlog.get_logger(__name__)

_ANSWER_SECONDS = 5.0
_PAUSE_SECONDS = 0.2
_LEASE_PAUSE_SECONDS = 0.25
_KEPT_BUNDLES = 256


class Source(msgspec.Struct, frozen=True):
    """A bundle and its encoded form, or why there is none."""

    data: bytes = b""
    bundle: SourceBundle | None = None
    error: str | None = None


class Asker:
    """Asks managers over the bus and keeps the bundles that came last.

    Args:
        bus: The connection.
        group: Where questions wait for their answers.
        ask_seconds: How long a task's question may go unanswered.
    """

    def __init__(self, bus: Bus, group: anyio.abc.TaskGroup, *, ask_seconds: float) -> None:
        self._bus = bus
        self._group = group
        self._ask_seconds = ask_seconds
        self._bundles: OrderedDict[str, Source] = OrderedDict()
        self._wanted: dict[str, list[Callable[[Source], None]]] = {}
        self._answered = True

    def source(self, hash_: str) -> Source | None:
        """Return the bundle if it is at hand."""
        source = self._bundles.get(hash_)
        if source is not None:
            self._bundles.move_to_end(hash_)
        return source

    def want_source(self, hash_: str, use: Callable[[Source], None]) -> None:
        """Call `use` once the bundle is at hand, or known not to exist."""
        waiting = self._wanted.setdefault(hash_, [])
        waiting.append(use)
        if len(waiting) == 1:
            self._group.start_soon(self._fetch_source, hash_)

    def want_lease(self, question: AskLease, use: Callable[[Lease], None]) -> None:
        """Call `use` with what the managers say of a task that was delivered before."""
        self._group.start_soon(self._fetch_lease, question, use)

    def answer(self, question: bytes, use: Callable[[bytes], None]) -> None:
        """Forward a runner's encoded question, and call `use` with the encoded Piece."""
        self._group.start_soon(self._forward, question, use)

    async def _forward(self, question: bytes, use: Callable[[bytes], None]) -> None:
        text = "no manager answers"
        with anyio.move_on_after(self._ask_seconds):
            while True:
                try:
                    use(await self._bus.request(Subjects.ASK, question, _ANSWER_SECONDS))
                except BusUnavailable as error:
                    text = str(error)
                    await anyio.sleep(_PAUSE_SECONDS)
                else:
                    return
        use(encode(Piece(b"", 0, text)))

    async def _fetch_lease(self, question: AskLease, use: Callable[[Lease], None]) -> None:
        await anyio.sleep(_LEASE_PAUSE_SECONDS)  # results that are stored are folded meanwhile
        piece = await self._piece(question)
        use(Lease.FREE if piece.error is not None else decode_lease(piece.data))

    async def _fetch_source(self, hash_: str) -> None:
        """Ask until there is an answer: until then its tasks could only fail."""
        try:
            source = await self._whole_source(hash_)
        except msgspec.DecodeError as error:
            source = Source(error=f"the code {hash_[:12]} arrived broken: {error}")
        if source.error is None:
            self._bundles[hash_] = source
            while len(self._bundles) > _KEPT_BUNDLES:
                self._bundles.popitem(last=False)
        for use in self._wanted.pop(hash_):
            use(source)

    async def _whole_source(self, hash_: str) -> Source:
        data = b""
        while True:
            piece = await self._piece(AskSource(hash_, len(data)))
            if piece.error is not None:
                return Source(error=piece.error)
            data += piece.data
            if len(data) >= piece.total or not piece.data:
                return Source(data, msgspec.msgpack.decode(data, type=SourceBundle))

    async def _piece(self, question: Ask) -> Piece:
        payload = encode(question)
        while True:
            try:
                answer = await self._bus.request(Subjects.ASK, payload, _ANSWER_SECONDS)
            except BusUnavailable as error:
                if self._answered:
                    log.warning("worker.managers_away", error=str(error))
                self._answered = False
                await anyio.sleep(_PAUSE_SECONDS)
            else:
                if not self._answered:
                    log.info("worker.managers_back")
                self._answered = True
                return decode_piece(answer)
