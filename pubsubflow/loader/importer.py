"""The importer: imports DAG files in child processes, each file within a time limit."""

import asyncio
import os
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import msgspec

from pubsubflow.exit_codes import describe_exit
from pubsubflow.loader.children import ImportChild, ImportChildren
from pubsubflow.loader.left_out import with_reason
from pubsubflow.loader.messages import ImportRequest, ImportResult
from pubsubflow.loader.settings import LoaderSettings
from pubsubflow.loader.snapshot import Snapshot
from pubsubflow.model.source.bundles import contents, contents_hash, isolation
from pubsubflow.model.spec import LoadedFile
from pubsubflow.model.values.variables import Variable
from pubsubflow.runner.caches.bundle_cache import BundleCache
from pubsubflow.runner.forkserver import ForkServer

_SLOW_IMPORTS = 16
ReadVariables = Callable[[Sequence[str]], Awaitable[Mapping[str, Variable]]]
"""Returns those of some variables that are set; of secret ones without the value."""
# A file may use a variable whose name another one holds.
_MOST_PASSES = 10


def known_values(found: Mapping[str, Variable], names: Iterable[str]) -> dict[str, tuple[Any, ...]]:
    """Return names with their values, each in a tuple that is empty without a plain value."""
    return {
        name: (found[name].value,) if name in found and not found[name].secret else ()
        for name in names
    }


class Lanes:
    """The order of imports: a slow one makes room for the next, and goes on beside the others.

    Args:
        settings: How many run at once, and when one is slow.

    Attributes:
        slow: Files whose import takes long now, or took long the last time.
        waiting: How many files wait for a place.
        changed: Set when another file is slow.
    """

    def __init__(self, settings: LoaderSettings) -> None:
        self._seconds = settings.slow_seconds
        self._usual = anyio.CapacityLimiter(settings.processes or os.cpu_count() or 1)
        self._aside = anyio.CapacityLimiter(_SLOW_IMPORTS)
        self._places: dict[object, anyio.CapacityLimiter] = {}
        self.slow: set[str] = set()
        self.waiting = 0
        self.changed = anyio.Event()

    @asynccontextmanager
    async def enter(self, file: str) -> AsyncIterator[Callable[[], None]]:
        """Wait for a place, and hold it inside the block, which gets what starts the clock."""
        # A file that was slow has places of its own, in which it holds up none of the others.
        lane = self._aside if file in self.slow else self._usual
        # Not the file: an import of it that was cancelled may hold its place for a moment more.
        holder = object()
        self.waiting += 1
        try:
            await lane.acquire_on_behalf_of(holder)
        finally:
            self.waiting -= 1
        self._places[holder] = lane
        timers: list[asyncio.TimerHandle] = []

        def begin() -> None:
            loop = asyncio.get_running_loop()
            timers.append(loop.call_later(self._seconds, self._step_aside, file, holder))

        try:
            yield begin
        finally:
            for timer in timers:
                timer.cancel()
            self._places.pop(holder).release_on_behalf_of(holder)

    def _step_aside(self, file: str, holder: object) -> None:
        """Make room for the next file, if there is a place aside."""
        self.slow.add(file)
        with suppress(anyio.WouldBlock):
            if self._places[holder] is self._usual:
                self._aside.acquire_on_behalf_of_nowait(holder)
                self._usual.release_on_behalf_of(holder)
                self._places[holder] = self._aside
        self.changed.set()
        self.changed = anyio.Event()


class Importer:
    """Imports files of one folder, several at once.

    Args:
        cache: Has the files of the bundles.
        fork_server: Forks the child processes.
        settings: Limits.
        read_variables: Reads those that files use.

    Attributes:
        lanes: The order of the imports.
    """

    def __init__(
        self,
        cache: BundleCache,
        fork_server: ForkServer,
        settings: LoaderSettings,
        read_variables: ReadVariables,
    ) -> None:
        self._read_variables = read_variables
        self._cache = cache
        self._settings = settings
        self.lanes = Lanes(settings)
        self._children = ImportChildren(
            fork_server, settings.files_a_process, lambda: self.lanes.waiting > 0
        )

    async def load(self, file: str, snapshot: Snapshot) -> ImportResult:
        """Import one file of a snapshot; an error of its code is in the result.

        Raises:
            OSError: The system refuses another process, or the disk is full.
        """
        try:
            async with self.lanes.enter(file) as begin:
                found = await self._load_with_variables(file, snapshot, begin)
        finally:
            await self._children.end_idle()
        if found.loaded.seconds <= self._settings.slow_seconds:
            self.lanes.slow.discard(file)
        bundle = snapshot.bundle_of(file)
        source = contents_hash(contents(bundle.manifest, found.reads))
        loaded = found.loaded
        error = None if loaded.error is None else with_reason(loaded.error, snapshot.skipped)
        dags = tuple(
            msgspec.structs.replace(dag, source=source, variables=found.variables)
            for dag in loaded.dags
        )
        loaded = msgspec.structs.replace(
            loaded, bundle=bundle.hash, source=source, dags=dags, error=error
        )
        return msgspec.structs.replace(found, loaded=loaded)

    async def _load_with_variables(
        self, file: str, snapshot: Snapshot, begin: Callable[[], None]
    ) -> ImportResult:
        """Import a file, once more with the variables that it has turned out to use."""
        known: dict[str, tuple[Any, ...]] = {}
        secrets: set[str] = set()
        for _ in range(_MOST_PASSES):
            found = await self._load(file, snapshot, begin, known, secrets)
            if not found.wanted:
                break
            variables = await self._read_variables(found.wanted)
            secrets |= {name for name, each in variables.items() if each.secret}
            known |= known_values(variables, found.wanted)
        return found

    async def _load(
        self,
        file: str,
        snapshot: Snapshot,
        begin: Callable[[], None],
        variables: dict[str, tuple[Any, ...]],
        secrets: Collection[str],
    ) -> ImportResult:
        bundle = snapshot.bundle_of(file)
        path, manifest = bundle.path_of(file), bundle.manifest
        key = (bundle.hash, isolation(manifest.isolated, path))
        request = ImportRequest(
            *("", manifest.root, file, path),
            *(self._settings.import_seconds, variables, tuple(secrets), manifest.kind),
        )
        used = self._children.take(key)
        if used is not None:
            found = await self._import_in(used, key, request, begin)
            # What it fails by may be a neighbour's: once more, alone. What hangs comes again later.
            hung = found.loaded.seconds >= request.seconds
            if found.loaded.error is None or found.wanted or hung:
                return found
        folder = await anyio.to_thread.run_sync(self._cache.open, bundle.hash, manifest)
        request = msgspec.structs.replace(request, folder=str(folder))
        return await self._import_in(None, key, request, begin)

    async def _import_in(
        self,
        child: ImportChild | None,
        key: tuple[str, str],
        request: ImportRequest,
        begin: Callable[[], None],
    ) -> ImportResult:
        """Import a file in a child that has imported others, or in a new one."""
        seconds = request.seconds
        if child is None:
            child = await self._children.fork(request)
            sent = None
        else:
            sent = msgspec.structs.replace(request, folder=child.folder)
        # From here on: what makes the child wait before, such as a zygote that starts, is not the
        # file's.
        begin()
        keep = False
        try:
            if sent is not None:
                await child.send(sent)
            found = await child.receive(seconds)
            keep = found.clean
        except TimeoutError:
            text = f"the import took longer than {seconds:g} s"
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            text = f"the import's process ended with {describe_exit(await child.wait())}"
        else:
            return found
        finally:
            if keep:
                await self._children.give_back(key, child)
            else:
                await child.aclose()
        error = f"{Path(request.root, request.path)}: {text}"
        return ImportResult(LoadedFile(request.file, error=error, seconds=seconds), outside=True)
