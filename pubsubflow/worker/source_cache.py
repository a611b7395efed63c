"""The source cache of a worker: the code of runs, with its bundles on this machine."""

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.abc
import msgspec
import structlog
from anyio import to_thread

from pubsubflow.model.recent import Recent
from pubsubflow.model.source.bundles import BundleFile, DagSource, Manifest, isolation
from pubsubflow.model.wire.messages import encode
from pubsubflow.model.wire.worker_requests import (
    BundleRequest,
    FileRequest,
    SourceRequest,
)
from pubsubflow.open_files import EXHAUSTED
from pubsubflow.runner.caches.bundle_cache import BundleCache
from pubsubflow.runner.protocol import RunnerSource
from pubsubflow.worker.manager_client import ManagerClient

log = structlog.get_logger(__name__)

_FILES_SECONDS = 1.0

_CACHED_SOURCES = 4096
_KEPT_BUNDLES = 8
_FILES_AT_ONCE = 8
_ATTEMPTS = 3

T = TypeVar("T")
Request = type[SourceRequest] | type[BundleRequest] | type[FileRequest]


class FetchedSource(msgspec.Struct, frozen=True):
    """The code of runs, or the reason why there is none.

    Attributes:
        data: The encoded RunnerSource.
        bundle: Hash of its bundle.
        process: The key of the processes that may run it: its bundle, and what in it is isolated.
        error: None for code that is here.
    """

    data: bytes = b""
    bundle: str = ""
    process: str = ""
    error: str | None = None


class SourceCache:
    """Fetches sources and bundles from the managers, and keeps those used last.

    Args:
        managers: Answer requests.
        cache: Keeps bundles on disk.
        group: The task group in which requests wait for their replies.

    Attributes:
        sources: The sources used last, by key.
    """

    def __init__(
        self, managers: ManagerClient, cache: BundleCache, group: anyio.abc.TaskGroup
    ) -> None:
        self._managers = managers
        self._cache = cache
        self._group = group
        self.sources: Recent[str, FetchedSource] = Recent(_CACHED_SOURCES)
        self._waiters: dict[str, list[Callable[[FetchedSource], None]]] = {}
        self._manifests: dict[str, tuple[Path, Manifest]] = {}
        self._locks: dict[str, anyio.Lock] = {}

    def fetch(self, key: str, use: Callable[[FetchedSource], None]) -> None:
        """Call `use` once the source is here, or known not to exist."""
        waiters = self._waiters.setdefault(key, [])
        waiters.append(use)
        if len(waiters) == 1:
            self._group.start_soon(self._fetch, key)

    def release(self, used: Collection[str]) -> None:
        """Give up bundles that no process uses, but for the last ones.

        Args:
            used: Hashes of those that processes or waiting tasks use.
        """
        # Bundles stand in the order in which they came.
        last = list(self._manifests)[-_KEPT_BUNDLES:]
        gone = self._manifests.keys() - {*used, *last, *self._locks}
        if not gone:
            return
        for bundle in gone:
            del self._manifests[bundle]
        self.sources.discard(lambda source: source.bundle in gone)
        self._cache.release({*self._manifests, *self._locks})
        self._group.start_soon(to_thread.run_sync, self._cache.trim)

    async def _fetch(self, key: str) -> None:
        try:
            found = await self._read_when_files_can_be_opened(key)
        except LookupError as error:
            found = FetchedSource(error=str(error))
        except (msgspec.DecodeError, OSError) as error:
            log.warning("worker.source_failed", source=key, error=str(error))
            found = FetchedSource(error=f"the code {key[:12]} cannot be put on disk: {error}")
        if found.error is None:
            self.sources.put(key, found)
        for use in self._waiters.pop(key):
            use(found)

    async def _read_when_files_can_be_opened(self, key: str) -> FetchedSource:
        while True:
            try:
                return await self._read_source(key)
            except OSError as error:
                # That passes, and is not the task's fault: it waits.
                if error.errno not in EXHAUSTED:
                    raise
                log.warning("worker.source_postponed", source=key, error=str(error))
                await anyio.sleep(_FILES_SECONDS)

    async def _read_source(self, key: str) -> FetchedSource:
        source = await self._request(SourceRequest, key, DagSource)
        lock = self._locks.setdefault(source.bundle, anyio.Lock())
        try:
            async with lock:
                folder, manifest = await self._bundle(source.bundle)
        finally:
            if not lock.statistics().tasks_waiting:
                self._locks.pop(source.bundle, None)
        process = f"{source.bundle}/{isolation(manifest.isolated, source.file)}"
        data = encode(RunnerSource(str(folder), manifest.root, source, manifest.kind))
        return FetchedSource(data, source.bundle, process)

    async def _bundle(self, bundle: str) -> tuple[Path, Manifest]:
        """Return the folder of a bundle and its manifest; fetch what is not here."""
        if bundle in self._manifests:
            return self._manifests[bundle]
        manifest = await self._request(BundleRequest, bundle, Manifest)
        for attempt in range(_ATTEMPTS):
            try:
                with self._cache.filling():
                    await self._fetch_files(manifest)
                    opening = partial(self._cache.open, bundle, manifest)
                    folder = await to_thread.run_sync(opening)
            except FileNotFoundError:
                # Written to, or removed by hand, between the fetch and the use.
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                break
        self._manifests[bundle] = folder, manifest
        self._group.start_soon(to_thread.run_sync, self._cache.trim)
        log.info("worker.bundle_opened", bundle=bundle, files=len(manifest.files))
        return folder, manifest

    async def _fetch_files(self, manifest: Manifest) -> None:
        missing = await to_thread.run_sync(self._cache.missing, manifest)
        limiter = anyio.CapacityLimiter(_FILES_AT_ONCE)
        files = {file.hash: file for file in manifest.files.values() if file.hash in missing}
        failures: list[Exception] = []

        async def fetch(file: BundleFile) -> None:
            async with limiter:
                try:
                    self._cache.add(await self._read(FileRequest, file.hash))
                except (LookupError, OSError) as error:
                    failures.append(error)

        async with anyio.create_task_group() as group:
            for file in files.values():
                group.start_soon(fetch, file)
        if failures:
            raise failures[0]
        # Where a file is executable, this makes it from its content.
        if broken := await to_thread.run_sync(self._cache.missing, manifest):
            raise LookupError(f"the file {min(broken)} arrived broken")

    async def _request(self, request: Request, key: str, kind: type[T]) -> T:
        return msgspec.msgpack.decode(await self._read(request, key), type=kind)

    async def _read(self, request: Request, key: str) -> bytes:
        data = bytearray()
        while True:
            chunk = await self._managers.request(request(key, len(data)))
            if chunk.error is not None:
                raise LookupError(chunk.error)
            data += chunk.data
            if len(data) >= chunk.total or not chunk.data:
                return bytes(data)
