"""The worker's side of the result store: it has the credentials, and users' processes have not."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import anyio.abc
import structlog

from pubsubflow.errors import NotFound
from pubsubflow.model.wire.messages import decode_result, encode
from pubsubflow.model.wire.stored_results import StoredResult, decode_stored, stored_part
from pubsubflow.model.wire.worker_requests import RESULT_LOST, Chunk
from pubsubflow.object_store import FileStore, ObjectStoreUnavailable
from pubsubflow.runner.protocol import StoredObjects
from pubsubflow.worker.assignment import Assignment

log = structlog.get_logger(__name__)

T = TypeVar("T")

_FIRST_PAUSE_SECONDS = 0.2
_MOST_PAUSE_SECONDS = 5.0
_CACHE_BYTES = 128 << 20
_NO_COPY = (
    f"{RESULT_LOST}it stays with its executor, and has no copy: have this task run there with the "
    "same result=, or set [results] store and max_bytes"
)
_NO_STORE = (
    "a result is in the result store, and this worker has none: set [results] store for it, too"
)


class ResultStore:
    """Writes and reads large results, and tries again while the store is away.

    Args:
        store: The store; without one, only errors come back.
        wait_seconds: How long it tries.

    Attributes:
        available: Whether the last call of the store succeeded.
    """

    def __init__(self, store: FileStore | None, wait_seconds: float) -> None:
        self._store = store
        self._wait_seconds = wait_seconds
        self._cached: OrderedDict[StoredResult, bytes] = OrderedDict()
        self._cached_bytes = 0
        self.available = True

    async def write(self, stored: StoredResult, data: bytes) -> str | None:
        """Write a result; return why that failed, or None."""
        store = self._store
        if store is None:
            return _NO_STORE
        try:
            await self._try(lambda: store.write(stored.name, data))
        except ObjectStoreUnavailable as error:
            return f"the result was not stored within {self._wait_seconds:g} s: {error}"
        self._cache(stored, data)
        return None

    async def fetch(self, stored: StoredResult, reply: Callable[[bytes], None]) -> None:
        """Read a result and reply with an encoded Chunk: the whole of it, or why not."""
        data = self._cached.get(stored)
        if data is not None:
            self._cached.move_to_end(stored)
            reply(encode(Chunk(data, len(data))))
            return
        reply(encode(await self._read(stored)))

    async def _read(self, stored: StoredResult) -> Chunk:
        """Return a result that is not in memory, or why it cannot be read."""
        if not stored.copied:
            return Chunk(b"", 0, _NO_COPY)
        store = self._store
        if store is None:
            return Chunk(b"", 0, _NO_STORE)
        try:
            data = await self._try(lambda: store.read(stored.name))
        except NotFound:
            return Chunk(b"", 0, f"the result is not in the result store: {stored.name}")
        except ObjectStoreUnavailable as error:
            return Chunk(b"", 0, f"a result was not read within {self._wait_seconds:g} s: {error}")
        self._cache(stored, data)
        return Chunk(data, len(data))

    async def _try(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call until it succeeds, or too long.

        Raises:
            ObjectStoreUnavailable: The store is away.
            NotFound: The object does not exist.
        """
        give_up_at = anyio.current_time() + self._wait_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                found = await call()
            except ObjectStoreUnavailable as error:
                if self.available:
                    log.warning("result_store.unavailable", reason=str(error))
                self.available = False
                if anyio.current_time() + pause >= give_up_at:
                    raise
                await anyio.sleep(pause)
                pause = min(pause * 2, _MOST_PAUSE_SECONDS)
            else:
                if not self.available:
                    log.info("result_store.recovered")
                self.available = True
                return found

    def _cache(self, stored: StoredResult, data: bytes) -> None:
        """Keep a result for the tasks that take it, the latest ones first."""
        self._cached_bytes += len(data) - len(self._cached.pop(stored, b""))
        self._cached[stored] = data
        while self._cached_bytes > _CACHE_BYTES:
            _, oldest = self._cached.popitem(last=False)
            self._cached_bytes -= len(oldest)


class ResultUploads:
    """The large results of a pool that are being stored; their assignments are held until then.

    Args:
        store: The store.
        group: The task group in which they are stored and read.
        on_done: Called with an assignment, its encoded ResultMessage, and why it was not stored.
    """

    def __init__(
        self,
        store: ResultStore,
        group: anyio.abc.TaskGroup,
        on_done: Callable[[Assignment, bytes, str | None], None],
    ) -> None:
        self._store = store
        self._group = group
        self._on_done = on_done
        self._running: set[Assignment] = set()

    def __contains__(self, assignment: Assignment) -> bool:
        """Return whether the result of an assignment is being stored."""
        return assignment in self._running

    def start(self, assignment: Assignment, payload: bytes, objects: StoredObjects) -> None:
        """Store what is large of a result; `payload` is the message that waits for it."""
        self._running.add(assignment)
        self._group.start_soon(self._write, assignment, payload, objects)

    def fetch(self, stored: StoredResult, reply: Callable[[bytes], None]) -> None:
        """Read a result; `reply` takes an encoded Chunk."""
        self._group.start_soon(self._store.fetch, stored, reply)

    def give_up(self) -> set[Assignment]:
        """Return what is being stored; nothing follows for these."""
        given_up, self._running = self._running, set()
        return given_up

    async def _write(self, assignment: Assignment, payload: bytes, objects: StoredObjects) -> None:
        error = None
        for part, data in objects:
            stored = stored_part(assignment.fence, part, len(data))
            if not part:
                # Where else it is to be, the runner has decided.
                stored = decode_stored(decode_result(payload).value) or stored
            error = error or await self._store.write(stored, data)
        if assignment in self._running:
            self._running.discard(assignment)
            self._on_done(assignment, payload, error)
