"""The loader service: keeps the stored DAGs equal to the DAGs folder."""

import time
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import anyio
import anyio.abc
import anyio.lowlevel
import msgspec
import structlog
from anyio import to_thread

from pubsubflow.bus import Bus
from pubsubflow.errors import Unavailable
from pubsubflow.loader.compiled.restoring import compiled_imports
from pubsubflow.loader.dag_store import DagStore, log_stored, retry_until_available
from pubsubflow.loader.folder import Folder
from pubsubflow.loader.importer import Importer, ReadVariables, known_values
from pubsubflow.loader.once import Progress, environment_variables
from pubsubflow.loader.records import ImportRecord, ImportSurroundings
from pubsubflow.loader.settings import LoaderSettings
from pubsubflow.loader.snapshot import FOLDER, EarlyReading, Snapshot, SnapshotReader
from pubsubflow.loader.state import LoaderState
from pubsubflow.loader.watch.folder_watch import FolderWatch
from pubsubflow.model.source.bundles import BundleFile
from pubsubflow.model.source.compiled import CompiledFolder
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.runner.caches.bundle_cache import BundleCache
from pubsubflow.runner.forkserver import ForkServer

log = structlog.get_logger(__name__)

_FILES_A_SAVE = 200
_FILES_AN_ADVANCE = 1_000
_FILES_A_TURN = 250
_GATHER_SECONDS = 0.1
_START_GATHER_SECONDS = 0.5
"""The same before the first are stored: what is stored of them serves no one yet."""


class _Loading(msgspec.Struct, eq=False):
    """An import under way: what cancels it, and what it is made from."""

    scope: anyio.CancelScope
    snapshot: Snapshot


class Loader:
    """Imports DAG files when they change, and stores the results.

    Args:
        root: The DAGs folder, or a single DAG file.
        fork_server: Forks the child processes; best with `PRELOAD` imported.
        store: Stores the results.
        cache: Keeps bundles on disk.
        bus: Carries requests to reload, if there is one.
        settings: Limits.
        read_variables: Reads the variables that files use; of the environment if left out.
        on_progress: Called while files are imported: how many are, of how many.
        kinds: Folders of bundles of another kind; see `Folder`.
        elsewhere: Where those of them lie that are not in the folder.
        compiled: A manifest of the folder, which has been compared with it.
        early: A reading of the folder, under way or done, with the same cache.

    Raises:
        ConfigError: `root` does not exist.
    """

    def __init__(
        self,
        root: Path,
        *,
        fork_server: ForkServer,
        store: DagStore,
        cache: BundleCache,
        bus: Bus | None = None,
        settings: LoaderSettings | None = None,
        read_variables: ReadVariables | None = None,
        on_progress: Progress | None = None,
        kinds: Mapping[str, str] | None = None,
        elsewhere: Mapping[str, Path] | None = None,
        compiled: CompiledFolder | None = None,
        early: EarlyReading | None = None,
    ) -> None:
        self._compiled = compiled
        self._early = early
        self._on_progress = on_progress
        self._read_variables = read_variables or environment_variables
        self._bus = bus
        self._settings = settings or LoaderSettings()
        self._folder = Folder(root, kinds, elsewhere)
        self._cache = cache
        self._reader = SnapshotReader(self._folder, cache, self._settings)
        self._importer = Importer(cache, fork_server, self._settings, self._read_variables)
        self._store = store
        self._state = LoaderState(self._settings.retry_seconds)
        self._stored_bundles: set[str] = set()
        self._loading: dict[str, _Loading] = {}
        self._environment = fork_server.environment
        self._surroundings = ImportSurroundings("", {})
        self._folder_changed = anyio.Event()
        self._results_changed = anyio.Event()
        self._all_loaded = anyio.Event()
        self._settled = anyio.Event()

    def reload(self) -> None:
        """Import every file again, whether it has changed or not."""
        self._state.forget()
        self._folder_changed.set()

    def look_again(self) -> None:
        """Look whether files, or the kinds of bundles, have changed."""
        self._folder_changed.set()

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Keep the stored DAGs equal to the folder until `stopping` is set.

        Reports started when every file was imported once and the results are stored; files whose
        import takes long are not waited for. What would be the same as what is stored is not
        imported; where that is uncertain, it is after the start.
        """
        watch = FolderWatch(self._folder, self._settings, self.look_again)
        async with AsyncExitStack() as stack:
            if self._bus is not None:
                subscription = await self._bus.subscribe(
                    Subjects.RELOAD, lambda _message: self.reload()
                )
                await stack.enter_async_context(subscription)
                subscription = await self._bus.subscribe(
                    Subjects.VARIABLES_CHANGED,
                    lambda message: self._variables_changed([message.data.decode()]),
                )
                await stack.enter_async_context(subscription)
            group = await stack.enter_async_context(anyio.create_task_group())
            group.start_soon(watch.run)
            # The watch begins before the first scan, so that no change in between is missed.
            await anyio.lowlevel.checkpoint()
            await self._restore()
            group.start_soon(self._keep_scanning, group)
            group.start_soon(self._keep_storing, task_status)
            group.start_soon(self._follow_slow_imports)
            group.start_soon(self._keep_spares)
            await stopping.wait()
            group.cancel_scope.cancel()

    async def _restore(self) -> None:
        """Take what is stored of the files, and the imports that need not be repeated."""
        files = await retry_until_available(self._store.imported_files)
        stored = await retry_until_available(self._store.stored_imports)
        # Before the first import, so that what is installed meanwhile counts as a change.
        read = partial(
            ImportSurroundings.read, self._folder.root, self._folder.kinds, self._settings
        )
        self._surroundings = await to_thread.run_sync(read, self._environment())
        records = await to_thread.run_sync(self._surroundings.restore, stored)
        records = {file: records[file] for file in files if file in records}
        compiled = await self._compiled_imports()
        # What was stored here was decided by what is here.
        for file in records.keys() & compiled.keys():
            del compiled[file]
        self._state.restore(files, records, compiled)

    async def _compiled_imports(self) -> dict[str, ImportRecord]:
        """Return the imports that the manifest has, if there is one."""
        if self._compiled is None:
            return {}
        key, read = self._surroundings.key, self._read_variables
        found = await retry_until_available(partial(compiled_imports, self._compiled, key, read))
        log.info("loader.manifest_read", files=len(self._compiled.files), known=len(found))
        return found

    def _variables_changed(self, names: Collection[str]) -> None:
        """Import the files that use variables which have changed again."""
        if self._state.forget_variables(names):
            self._folder_changed.set()

    async def _check_variables(self) -> None:
        """Find changes of variables of which the message was lost."""
        used = self._state.used_variables()
        if not used:
            return
        try:
            found = await self._read_variables(list(used))
        except Unavailable:
            return
        now = known_values(found, used)
        self._variables_changed([name for name in used if now[name] != used[name]])

    async def _keep_scanning(self, group: anyio.abc.TaskGroup) -> None:
        while True:
            self._folder_changed = anyio.Event()
            await self._check_variables()
            await self._scan(group)
            with anyio.move_on_after(self._pause_seconds()):
                await self._folder_changed.wait()

    def _pause_seconds(self) -> float:
        """Return how long to wait for a notification."""
        retry_at = self._state.next_retry()
        rescan = self._settings.rescan_seconds
        return rescan if retry_at is None else min(rescan, max(0.0, retry_at - time.monotonic()))

    async def _scan(self, group: anyio.abc.TaskGroup) -> None:
        """Scan the folder, cancel imports that are out of date, and start those that are needed."""
        try:
            snapshot = await to_thread.run_sync(self._read)
        except OSError as error:
            snapshot = self._unreadable(error)
        state, now = self._state, time.monotonic()
        state.update(snapshot)
        for file, loading in list(self._loading.items()):
            if snapshot.file(file) != loading.snapshot.file(file):
                loading.scope.cancel()
                del self._loading[file]
        for file in snapshot.files:
            if file not in self._loading and state.is_stale(file, now):
                loading = self._loading[file] = _Loading(anyio.CancelScope(), snapshot)
                group.start_soon(self._load, file, loading)
        self._report()
        self._drop_bundles()
        self._cache.release(state.bundles.keys())
        self._results_changed.set()
        # No start waits for it, and what was let go above goes first.
        await to_thread.run_sync(self._trim)

    def _read(self) -> Snapshot:
        if self._early is not None:
            self._reader, self._early = self._early.result(), None
        with self._cache.filling():
            snapshot = self._reader.read()
            try:
                self._open(snapshot)
            except FileNotFoundError:
                # What cleans up caches has removed files, or one was written to.
                self._reader.forget()
                snapshot = self._reader.read()
                self._open(snapshot)
        return snapshot

    def _trim(self) -> None:
        try:
            self._cache.trim()
        except OSError as error:
            log.warning("loader.trim_failed", error=str(error))

    def _open(self, snapshot: Snapshot) -> None:
        for bundle in snapshot.bundles.values():
            self._cache.open(bundle.hash, bundle.manifest)

    def _content(self, file: BundleFile) -> bytes:
        """Return what a file of a bundle holds; one that the cache has lost is read again."""
        try:
            return self._cache.read(file)
        except FileNotFoundError:
            self._reader.forget()
            self.look_again()
            raise

    def _unreadable(self, error: OSError) -> Snapshot:
        """Return the last snapshot with an error: the DAGs stay as they are."""
        text = f"the DAGs folder {self._folder.root} cannot be read: {error.strerror or error}"
        log.warning("loader.scan_failed", root=str(self._folder.root), error=str(error))
        return msgspec.structs.replace(self._state.snapshot, errors={FOLDER: text})

    async def _load(self, file: str, loading: _Loading) -> None:
        """Import a file, again while what it reads changes during the import."""
        with loading.scope:
            while True:
                # Of the snapshot at this moment; the import may outlive it.
                snapshot = loading.snapshot = self._state.snapshot
                load = partial(self._importer.load, file, snapshot)
                imported = await retry_until_available(load)
                self._state.add(imported, snapshot, time.monotonic())
                if not self._state.is_stale(file, time.monotonic()):
                    self._state.move(file)
                    break
            if imported.outside:
                # The next scan is due earlier now: at the next attempt.
                self._folder_changed.set()
            del self._loading[file]
            self._report()
            self._results_changed.set()
            if not self._loading:
                self._all_loaded.set()

    def _report(self) -> None:
        if self._on_progress is not None:
            total = len(self._state.snapshot.files)
            self._on_progress(total - len(self._loading), total)

    async def _follow_slow_imports(self) -> None:
        """Notice when an import turns out to be slow: the start is not held up by it."""
        while True:
            await self._importer.lanes.changed.wait()
            self._results_changed.set()

    async def _keep_storing(self, task_status: anyio.abc.TaskStatus[None]) -> None:
        started, retire_seconds = False, None
        while True:
            with anyio.move_on_after(retire_seconds):
                await self._results_changed.wait()
            if self._loading:
                # Others follow at once, most often: a transaction stores many.
                self._all_loaded = anyio.Event()
                seconds = _GATHER_SECONDS if started else _START_GATHER_SECONDS
                gathered = anyio.current_time() + seconds
                # Meanwhile the bundles in which they are imported: what they make needs these.
                for bundle in list(self._state.snapshot.bundles.values()):
                    await self._store_bundle(bundle.hash)
                with anyio.CancelScope(deadline=gathered):
                    await self._all_loaded.wait()
            self._results_changed = anyio.Event()
            await self._store_changes()
            retire = partial(self._store.retire, self._settings.missing_seconds)
            retire_seconds = await retry_until_available(retire)
            if not (started or self._awaited() or self._results_changed.is_set()):
                started = True
                task_status.started()
                self._verify()
            if started and not self._loading:
                self._settled.set()

    async def _keep_spares(self) -> None:
        """Prepare for the next change of large bundles whenever all is stored."""
        while True:
            await self._settled.wait()
            self._settled = anyio.Event()
            for bundle in list(self._state.snapshot.bundles.values()):
                try:
                    await to_thread.run_sync(self._cache.prepare, bundle.hash, bundle.manifest)
                except OSError as error:
                    log.warning("loader.spare_failed", error=str(error))

    def _awaited(self) -> bool:
        """Return whether there are imports that end soon."""
        return bool(self._loading.keys() - self._importer.lanes.slow)

    def _verify(self) -> None:
        """Repeat imports that may have another outcome for a reason that cannot be seen."""
        uncertain = self._state.verify_uncertain()
        if uncertain:
            log.info("loader.verification_started", files=uncertain)
            self._folder_changed.set()

    async def _store_changes(self) -> None:
        save, _, remove = self._state.changes()
        for first in range(0, len(save), _FILES_A_SAVE):
            batch = save[first : first + _FILES_A_SAVE]
            for bundle in {loaded.bundle for loaded in batch if loaded.calls_code}:
                await self._store_bundle(bundle)
            records = self._state.records(batch, self._surroundings)
            await retry_until_available(partial(self._store.save, batch, records))
            self._state.saved(batch)
            log_stored(batch)
        if not self._awaited():
            await self._advance()
        # Last: a DAG of a file that was renamed has moved to the new one by now.
        if remove:
            await retry_until_available(partial(self._store.remove, remove))
            self._state.removed(remove)
            log.info("loader.files_removed", files=len(remove))

    async def _advance(self) -> None:
        """Put the bundles of the snapshot in force for the DAGs that stay the same.

        After the imports: thousands of these DAGs would hold up what has changed.
        """
        for number, file in enumerate(self._state.behind()):
            if not number % _FILES_A_TURN:
                await anyio.lowlevel.checkpoint()  # the API answers for what is stored meanwhile
            self._state.move(file)
        await anyio.lowlevel.checkpoint()
        for bundle, files in self._state.changes().advance.items():
            await self._store_bundle(bundle)
            for first in range(0, len(files), _FILES_AN_ADVANCE):
                if self._awaited():
                    break  # something has changed meanwhile, which would wait for the rest
                batch = files[first : first + _FILES_AN_ADVANCE]
                await retry_until_available(partial(self._store.advance, bundle, batch))
                self._state.advanced(bundle, batch)
        self._drop_bundles()

    def _drop_bundles(self) -> None:
        self._state.drop_bundles()
        # One that is in force no more may be removed from the store before it comes back.
        self._stored_bundles &= self._state.bundles.keys()

    async def _store_bundle(self, bundle: str) -> None:
        found = self._state.bundles.get(bundle)
        if found is None or bundle in self._stored_bundles:
            return
        before = self._state.stored_like(found, self._stored_bundles)
        save = partial(self._store.save_bundle, bundle, found.manifest, self._content, before)
        await retry_until_available(save)
        if bundle in self._state.bundles:  # it may have gone meanwhile, see above
            self._stored_bundles.add(bundle)
        log.info("loader.bundle_stored", bundle=bundle, files=len(found.manifest.files))
