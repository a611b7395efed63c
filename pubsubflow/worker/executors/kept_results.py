"""Kept results: large results that a host hands to its executor, and requests back, as files."""

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path

import anyio
import anyio.to_thread
import structlog

from pubsubflow.executors.hosting import FetchKept, KeptFile, read_once
from pubsubflow.model.wire.stored_results import StoredResult
from pubsubflow.model.wire.worker_requests import RESULT_LOST, Chunk
from pubsubflow.object_store import FileStore
from pubsubflow.worker.result_store import ResultStore

log = structlog.get_logger(__name__)


class ResultExchange:
    """The files of large results, between a host and what started it.

    Args:
        folder: Where they are; its owner alone may enter it.
        request: Sends a request for one.
    """

    def __init__(self, folder: Path, request: Callable[[FetchKept], None]) -> None:
        self._folder = folder
        self._request = request
        self._kept: dict[str, Path] = {}
        self._replies: dict[int, _Reply] = {}
        self._numbers = count(1)

    async def keep(self, stored: StoredResult, data: bytes) -> None:
        """Write a result into a file, for `take`.

        Raises:
            OSError: It cannot be written.
        """
        path = self._folder / f"{os.getpid()}-{next(self._numbers)}"
        await anyio.to_thread.run_sync(path.write_bytes, data)
        self._kept[stored.kept_name] = path

    def take(self, name: str) -> str:
        """Return the file of a result of that name, which is the caller's then; empty for none."""
        path = self._kept.pop(name, None)
        return "" if path is None else str(path)

    async def fetch(self, stored: StoredResult) -> tuple[bytes | None, str]:
        """Return a result that is kept, else None and why; an empty reason if it is lost."""
        number = next(self._numbers)
        reply = self._replies[number] = _Reply()
        try:
            self._request(FetchKept(number, stored.kept_name))
            await reply.come.wait()
        finally:
            del self._replies[number]
        found = reply.found
        if not found.path:
            return None, found.error
        try:
            return await anyio.to_thread.run_sync(read_once, found.path), ""
        except OSError as error:
            return None, str(error)

    def on_reply(self, found: KeptFile) -> None:
        """Take the reply to a request."""
        reply = self._replies.get(found.number)
        if reply is None:
            # Its attempt was ended meanwhile.
            Path(found.path).unlink(missing_ok=True)
            return
        reply.found = found
        reply.come.set()


class _Reply:
    """What a request waits for."""

    def __init__(self) -> None:
        self.come = anyio.Event()
        self.found = KeptFile(0)


class KeptResults(ResultStore):
    """A result store before which results are kept by the executor.

    Args:
        store: The store of copies, if there is one.
        wait_seconds: How long it tries.
        exchange: Hands results to the executor.
    """

    def __init__(
        self, store: FileStore | None, wait_seconds: float, exchange: ResultExchange
    ) -> None:
        super().__init__(store, wait_seconds)
        self._exchange = exchange

    async def write(self, stored: StoredResult, data: bytes) -> str | None:
        """Write a result to where it is to be; return why that failed, or None."""
        if stored.copied:
            error = await super().write(stored, data)
            if error is not None or not stored.keeper:
                return error
        try:
            await self._exchange.keep(stored, data)
        except OSError as error:
            if not stored.copied:
                return f"the result was not handed to {stored.keeper}: {error}"
            log.warning("host.result_not_kept", keeper=stored.keeper, reason=str(error))
        return None

    async def _read(self, stored: StoredResult) -> Chunk:
        if not stored.keeper:
            return await super()._read(stored)
        data, reason = await self._exchange.fetch(stored)
        if data is not None:
            self._cache(stored, data)
            return Chunk(data, len(data))
        if stored.copied:
            log.info("host.result_read_from_store", name=stored.kept_name, reason=reason)
            return await super()._read(stored)
        if reason:
            return Chunk(b"", 0, f"{stored.keeper} does not give a result: {reason}")
        return Chunk(
            b"",
            0,
            f"{RESULT_LOST}{stored.keeper} has lost a result of {stored.size:,} bytes: "
            "what kept it is gone. Clear the task that returned it, or set [results] store "
            "and max_bytes, so that there are copies",
        )
