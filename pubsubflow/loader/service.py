"""The service that keeps the stored DAGs equal to the DAGs folder."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.abc
import anyio.lowlevel
import structlog
from anyio import to_thread
from watchfiles import awatch

from pubsubflow.errors import Unavailable
from pubsubflow.loader.folder import Folder
from pubsubflow.loader.importer import Importer, LoaderSettings
from pubsubflow.loader.messages import Imported
from pubsubflow.loader.sink import VersionSink
from pubsubflow.loader.state import Shelf, settle
from pubsubflow.model.spec import LoadedFile
from pubsubflow.runner.forkserver import ForkServer

log = structlog.get_logger(__name__)

PRELOAD = ("pubsubflow", "pubsubflow.loader.child")
_FILES_A_SAVE = 200
_RETRY_SECONDS = 1.0

T = TypeVar("T")


class Loader:
    """Imports DAG files when they change and stores what they gave.

    Args:
        root: The DAGs folder, or a single DAG file.
        fork_server: Gives warm processes; best with `PRELOAD` imported.
        sink: Where the results go.
        settings: Limits.

    Raises:
        ConfigError: There is nothing at `root`.
    """

    def __init__(
        self,
        root: Path,
        *,
        fork_server: ForkServer,
        sink: VersionSink,
        settings: LoaderSettings | None = None,
    ) -> None:
        self._settings = settings or LoaderSettings()
        self._folder = Folder(root)
        self._importer = Importer(self._folder, fork_server, self._settings)
        self._sink = sink
        self._shelf = Shelf()
        self._loading: dict[str, anyio.CancelScope] = {}
        self._news = anyio.Event()
        self._results = anyio.Event()

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Follow the folder until `stopping` is set.

        Reports started when every file was imported once and the results are stored.
        """
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch)
            await anyio.lowlevel.checkpoint()  # the watch stands before the first look
            self._shelf.known(await _patiently(self._sink.known))
            group.start_soon(self._follow, group)
            group.start_soon(self._store, task_status)
            await stopping.wait()
            group.cancel_scope.cancel()

    async def _watch(self) -> None:
        halt = anyio.Event()
        changes = awatch(
            self._folder.root,
            watch_filter=lambda _, path: self._folder.matters(path),
            debounce=self._settings.gather_milliseconds,
            step=200,
            stop_event=halt,
        )
        async with anyio.create_task_group() as group:
            group.start_soon(_set_when_cancelled, halt)
            async for _ in changes:
                self._news.set()

    async def _follow(self, group: anyio.abc.TaskGroup) -> None:
        while True:
            self._news = anyio.Event()
            await self._look(group)
            with anyio.move_on_after(self._settings.rescan_seconds):
                await self._news.wait()

    async def _look(self, group: anyio.abc.TaskGroup) -> None:
        """Start the imports that the folder's present state asks for."""
        try:
            signatures = await to_thread.run_sync(self._folder.scan)
        except OSError as error:
            log.warning("loader.folder_unreadable", root=str(self._folder.root), error=str(error))
            return
        files = self._folder.dag_files(signatures)
        changed = self._shelf.look(signatures, files)
        present = set(files)
        for file, scope in list(self._loading.items()):
            if file in changed or file not in present:
                scope.cancel()
                del self._loading[file]
        for file in files:
            if file not in self._loading and self._shelf.stale(file, self._folder.read):
                scope = self._loading[file] = anyio.CancelScope()
                group.start_soon(self._load, file, scope)
        self._results.set()

    async def _load(self, file: str, scope: anyio.CancelScope) -> None:
        """Import a file until nothing it came from changed meanwhile."""
        with scope:
            while True:
                generation = self._shelf.generation
                imported = await _patiently(partial(self._importer.load, file))
                self._shelf.put(imported, generation)
                if not self._shelf.stale(file, self._folder.read):
                    break
            del self._loading[file]
            self._results.set()

    async def _store(self, task_status: anyio.abc.TaskStatus[None]) -> None:
        started = False
        while True:
            await self._results.wait()
            self._results = anyio.Event()
            save, remove = self._shelf.changes()
            if remove:
                await _patiently(partial(self._sink.remove, remove))
                self._shelf.removed(remove)
                log.info("loader.files_removed", files=len(remove))
            for first in range(0, len(save), _FILES_A_SAVE):
                batch = save[first : first + _FILES_A_SAVE]
                await _patiently(partial(self._sink.save, batch))
                self._shelf.saved(batch)
                _tell(batch)
            if not (started or self._loading or self._results.is_set()):
                started = True
                task_status.started()


async def load_once(
    root: Path, *, fork_server: ForkServer | None = None, settings: LoaderSettings | None = None
) -> list[LoadedFile]:
    """Import every DAG file of a folder once, in path order; needs no daemon.

    Args:
        root: The DAGs folder, or a single DAG file.
        fork_server: Gives warm processes; one is started when None.
        settings: Limits.

    Raises:
        ConfigError: There is nothing at `root`.
    """
    folder = Folder(root)
    files = folder.dag_files(folder.scan())
    imports: dict[str, Imported] = {}
    async with _given_or_new(fork_server) as server:
        importer = Importer(folder, server, settings or LoaderSettings())

        async def load(file: str) -> None:
            imports[file] = await importer.load(file)

        async with anyio.create_task_group() as group:
            for file in files:
                group.start_soon(load, file)
    return list(settle(imports).values())


@asynccontextmanager
async def _given_or_new(fork_server: ForkServer | None) -> AsyncIterator[ForkServer]:
    if fork_server is not None:
        yield fork_server
        return
    async with ForkServer.start(preload=PRELOAD) as started:
        yield started


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat a call while the store is away, or the system gives no process."""
    while True:
        try:
            return await call()
        except (Unavailable, OSError) as error:
            log.warning("loader.waits", error=str(error))
            await anyio.sleep(_RETRY_SECONDS)


async def _set_when_cancelled(event: anyio.Event) -> None:
    """Let the watching thread end at once when we are cancelled."""
    try:
        await anyio.sleep_forever()
    finally:
        event.set()


def _tell(files: Sequence[LoadedFile]) -> None:
    for loaded in files:
        if loaded.error is None:
            log.info("loader.file_loaded", file=loaded.file, dags=len(loaded.dags))
        else:
            log.warning("loader.file_failed", file=loaded.file, error=loaded.error)
