"""The loader service: keeps the stored DAGs equal to the DAGs folder."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import anyio
import anyio.abc
import anyio.lowlevel
import structlog
from anyio import to_thread
from watchfiles import awatch

from pubsubflow.errors import Unavailable
from pubsubflow.loader.folder import Folder
from pubsubflow.loader.importer import Importer, LoaderSettings
from pubsubflow.loader.messages import ImportResult
from pubsubflow.loader.state import LoaderState, resolve_owners
from pubsubflow.model.spec import LoadedFile
from pubsubflow.runner.forkserver import ForkServer

log = structlog.get_logger(__name__)

PRELOAD = ("pubsubflow", "pubsubflow.loader.child")
_FILES_A_SAVE = 200
_RETRY_SECONDS = 1.0

T = TypeVar("T")


class DagStore(Protocol):
    """The store of what the DAG files define. All paths are relative to the DAGs folder.

    A file may be saved again unchanged. A DAG may come from another file than before: in one
    `save` the old file then comes without it.
    """

    async def imported_files(self) -> Mapping[str, str]:
        """Return file → bundle hash of the files stored without error."""

    async def save(self, files: Sequence[LoadedFile]) -> None:
        """Store the results of importing files, errors included.

        Raises:
            Unavailable: Worth a retry.
        """

    async def remove(self, files: Sequence[str]) -> None:
        """Remove files that are gone.

        Raises:
            Unavailable: Worth a retry.
        """


class Loader:
    """Imports DAG files when they change, and stores the results.

    Args:
        root: The DAGs folder, or a single DAG file.
        fork_server: Forks the child processes; best with `PRELOAD` imported.
        store: Stores the results.
        settings: Limits.

    Raises:
        ConfigError: `root` does not exist.
    """

    def __init__(
        self,
        root: Path,
        *,
        fork_server: ForkServer,
        store: DagStore,
        settings: LoaderSettings | None = None,
    ) -> None:
        self._settings = settings or LoaderSettings()
        self._folder = Folder(root)
        self._importer = Importer(self._folder, fork_server, self._settings)
        self._store = store
        self._state = LoaderState()
        self._loading: dict[str, anyio.CancelScope] = {}
        self._folder_changed = anyio.Event()
        self._results_changed = anyio.Event()

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Keep the stored DAGs equal to the folder until `stopping` is set.

        Reports started when every file was imported once and the results are stored.
        """
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch)
            # The watch begins before the first scan, so that no change in between is missed.
            await anyio.lowlevel.checkpoint()
            self._state.restore(await _retry_until_available(self._store.imported_files))
            group.start_soon(self._keep_scanning, group)
            group.start_soon(self._keep_storing, task_status)
            await stopping.wait()
            group.cancel_scope.cancel()

    async def _watch(self) -> None:
        halt = anyio.Event()
        changes = awatch(
            self._folder.root,
            watch_filter=lambda _, path: self._folder.is_relevant(path),
            debounce=self._settings.gather_milliseconds,
            step=200,
            stop_event=halt,
        )
        async with anyio.create_task_group() as group:
            group.start_soon(_set_when_cancelled, halt)
            async for _ in changes:
                self._folder_changed.set()

    async def _keep_scanning(self, group: anyio.abc.TaskGroup) -> None:
        while True:
            self._folder_changed = anyio.Event()
            await self._scan(group)
            with anyio.move_on_after(self._settings.rescan_seconds):
                await self._folder_changed.wait()

    async def _scan(self, group: anyio.abc.TaskGroup) -> None:
        """Scan the folder, cancel imports that are out of date, and start those that are needed."""
        try:
            signatures = await to_thread.run_sync(self._folder.scan)
        except OSError as error:
            log.warning("loader.scan_failed", root=str(self._folder.root), error=str(error))
            return
        files = self._folder.dag_files(signatures)
        changed = self._state.update(signatures, files)
        present = set(files)
        for file, scope in list(self._loading.items()):
            if file in changed or file not in present:
                scope.cancel()
                del self._loading[file]
        for file in files:
            if file not in self._loading and self._state.is_stale(file, self._folder.read):
                scope = self._loading[file] = anyio.CancelScope()
                group.start_soon(self._load, file, scope)
        self._results_changed.set()

    async def _load(self, file: str, scope: anyio.CancelScope) -> None:
        """Import a file, again while its sources change during the import."""
        with scope:
            while True:
                generation = self._state.generation
                imported = await _retry_until_available(partial(self._importer.load, file))
                self._state.add(imported, generation)
                if not self._state.is_stale(file, self._folder.read):
                    break
            del self._loading[file]
            self._results_changed.set()

    async def _keep_storing(self, task_status: anyio.abc.TaskStatus[None]) -> None:
        started = False
        while True:
            await self._results_changed.wait()
            self._results_changed = anyio.Event()
            save, remove = self._state.changes()
            if remove:
                await _retry_until_available(partial(self._store.remove, remove))
                self._state.removed(remove)
                log.info("loader.files_removed", files=len(remove))
            for first in range(0, len(save), _FILES_A_SAVE):
                batch = save[first : first + _FILES_A_SAVE]
                await _retry_until_available(partial(self._store.save, batch))
                self._state.saved(batch)
                _log_results(batch)
            if not (started or self._loading or self._results_changed.is_set()):
                started = True
                task_status.started()


async def load_once(
    root: Path, *, fork_server: ForkServer | None = None, settings: LoaderSettings | None = None
) -> list[LoadedFile]:
    """Import every DAG file of a folder once, in path order; needs no daemon.

    Args:
        root: The DAGs folder, or a single DAG file.
        fork_server: Forks the child processes; one is started when None.
        settings: Limits.

    Raises:
        ConfigError: `root` does not exist.
    """
    folder = Folder(root)
    files = folder.dag_files(folder.scan())
    imports: dict[str, ImportResult] = {}
    async with _fork_server_or_new(fork_server) as server:
        importer = Importer(folder, server, settings or LoaderSettings())

        async def load(file: str) -> None:
            imports[file] = await importer.load(file)

        async with anyio.create_task_group() as group:
            for file in files:
                group.start_soon(load, file)
    return list(resolve_owners(imports).values())


@asynccontextmanager
async def _fork_server_or_new(fork_server: ForkServer | None) -> AsyncIterator[ForkServer]:
    if fork_server is not None:
        yield fork_server
        return
    async with ForkServer.start(preload=PRELOAD) as started:
        yield started


async def _retry_until_available(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat a call while the store is out of reach, or the system refuses a process."""
    while True:
        try:
            return await call()
        except (Unavailable, OSError) as error:
            log.warning("loader.retry_scheduled", error=str(error))
            await anyio.sleep(_RETRY_SECONDS)


async def _set_when_cancelled(event: anyio.Event) -> None:
    """Set an event when this task is cancelled.

    The watch waits in a thread, which cancellation does not reach.
    """
    try:
        await anyio.sleep_forever()
    finally:
        event.set()


def _log_results(files: Sequence[LoadedFile]) -> None:
    for loaded in files:
        if loaded.error is None:
            log.info("loader.file_loaded", file=loaded.file, dags=len(loaded.dags))
        else:
            log.warning("loader.file_failed", file=loaded.file, error=loaded.error)
        for warning in loaded.warnings:
            log.warning("loader.unquoted_value", file=loaded.file, warning=warning)
