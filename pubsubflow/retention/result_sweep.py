"""The sweep of the result store: removes files that no task of a run refers to.

What a file belongs to follows from its name, so also what a lost attempt has left is found. A run
that has not ended keeps all of its files; what is listed before the rows are read is deleted, and
nothing else: a run that begins again gives its results other names.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar
from uuid import UUID

import structlog

from pubsubflow.errors import NotFound
from pubsubflow.object_store import FileStore
from pubsubflow.store import retention as store
from pubsubflow.store.database import Connection
from pubsubflow.store.slices import Removal

log = structlog.get_logger()

T = TypeVar("T")

_OWNER = "database-id"
_RUNS_AT_ONCE = 500
_FILES_AT_ONCE = 1000
_TABLE = "result store, files"


async def sweep_results(connection: Connection, files: FileStore, *, dry_run: bool) -> Removal:
    """Remove files of the result store that nothing refers to, or count them.

    Raises:
        ObjectStoreUnavailable: The store is away.
    """
    database = await store.read_database_id(connection)
    if not await _is_owner(files, database, dry_run=dry_run):
        log.error("retention.result_store_of_another_database", database=str(database))
        return Removal(_TABLE, 0, 0)
    found = await files.list()
    by_run: dict[int, list[str]] = {}
    for name in found:
        run = _run_of(name)
        if run is not None:
            by_run.setdefault(run, []).append(name)
    due: list[str] = []
    for runs in _pages(sorted(by_run), _RUNS_AT_ONCE):
        kept = await store.read_kept_results(connection, runs)
        for run in runs:
            names = kept.get(run, set())
            if names is not None:
                due += [name for name in by_run[run] if name not in names]
    if not dry_run:
        for page in _pages(due, _FILES_AT_ONCE):
            await files.delete(page)
    return Removal(_TABLE, len(due), sum(found[name] for name in due))


async def _is_owner(files: FileStore, database: UUID, *, dry_run: bool) -> bool:
    """Return whether the store is this database's: the first that sweeps it owns it."""
    try:
        return (await files.read(_OWNER)).decode() == str(database)
    except NotFound:
        if not dry_run:
            await files.write(_OWNER, str(database).encode())
        return True


def _run_of(name: str) -> int | None:
    """Return the run that a file belongs to; None if it is not one of ours."""
    folders = name.split("/")
    is_ours = len(folders) == 3 and name.endswith(".msgpack")  # noqa: PLR2004 - slice, run, file
    return int(folders[1]) if is_ours and folders[1].isdecimal() else None


def _pages(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
