"""Importing all files of a folder once; needs no daemon and none of its libraries."""

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import anyio
from anyio import to_thread

from pubsubflow.loader.folder import Folder
from pubsubflow.loader.importer import Importer
from pubsubflow.loader.messages import ImportResult
from pubsubflow.loader.ownership import resolve_owners
from pubsubflow.loader.settings import PRELOAD, LoaderSettings
from pubsubflow.loader.snapshot import Snapshot, SnapshotReader
from pubsubflow.model.spec import LoadedFile
from pubsubflow.model.values.variables import (
    ENVIRONMENT,
    Variable,
    environment_name,
    make_variable,
    parse_value,
)
from pubsubflow.runner.caches.bundle_cache import BundleCache
from pubsubflow.runner.forkserver import ForkServer

Progress = Callable[[int, int], None]
"""Is called while files are imported: how many are, of how many."""


class ImportedFolder(NamedTuple):
    """A folder that was imported once: its snapshot, and the import of each of its files."""

    snapshot: Snapshot
    imports: dict[str, ImportResult]

    def files(self) -> list[LoadedFile]:
        """Return what the files define, in path order, each DAG with the file that it is of."""
        loaded = resolve_owners(self.imports)
        for path, error in self.snapshot.errors.items():
            loaded[path] = LoadedFile(path, error=error)
        return [file for _, file in sorted(loaded.items())]


async def load_once(
    root: Path,
    *,
    fork_server: ForkServer | None = None,
    settings: LoaderSettings | None = None,
    on_progress: Progress | None = None,
    kinds: Mapping[str, str] | None = None,
    elsewhere: Mapping[str, Path] | None = None,
) -> list[LoadedFile]:
    """Import every DAG file of a folder once, in path order; needs no daemon.

    Args:
        root: The DAGs folder, or a single DAG file.
        fork_server: Forks the child processes; one is started when None.
        settings: Limits.
        on_progress: Called after each import: how many files, of how many.
        kinds: Folders of bundles of another kind; see `Folder`.
        elsewhere: Where those of them lie that are not in the folder.

    Raises:
        ConfigError: `root` does not exist.
    """
    found = await import_once(
        root,
        fork_server=fork_server,
        settings=settings,
        on_progress=on_progress,
        kinds=kinds,
        elsewhere=elsewhere,
    )
    return found.files()


async def import_once(
    root: Path,
    *,
    fork_server: ForkServer | None = None,
    settings: LoaderSettings | None = None,
    on_progress: Progress | None = None,
    kinds: Mapping[str, str] | None = None,
    elsewhere: Mapping[str, Path] | None = None,
) -> ImportedFolder:
    """Import every DAG file of a folder once, and return all that is known of the imports.

    The arguments are those of `load_once`.

    Raises:
        ConfigError: `root` does not exist.
    """
    settings = settings or LoaderSettings()
    imports: dict[str, ImportResult] = {}
    with tempfile.TemporaryDirectory(prefix="pubsubflow-") as place:
        cache = BundleCache(Path(place, "bundles"))
        folder = Folder(root, kinds, elsewhere)
        snapshot = await to_thread.run_sync(SnapshotReader(folder, cache, settings).read)
        async with _fork_server_or_new(fork_server) as server:
            importer = Importer(cache, server, settings, environment_variables)

            async def load(file: str) -> None:
                imports[file] = await importer.load(file, snapshot)
                if on_progress is not None:
                    on_progress(len(imports), len(snapshot.files))

            async with anyio.create_task_group() as group:
                for file in snapshot.files:
                    group.start_soon(load, file)
        cache.close()
    return ImportedFolder(snapshot, imports)


async def environment_variables(names: Sequence[str]) -> Mapping[str, Variable]:
    """Return those of some variables that the environment of this process has."""
    given = {name: os.environ.get(environment_name(ENVIRONMENT, name)) for name in names}
    return {
        name: make_variable(name, parse_value(text))
        for name, text in given.items()
        if text is not None
    }


@asynccontextmanager
async def _fork_server_or_new(fork_server: ForkServer | None) -> AsyncIterator[ForkServer]:
    if fork_server is not None:
        yield fork_server
        return
    async with ForkServer.start(preload=PRELOAD) as started:
        yield started
