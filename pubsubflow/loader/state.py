"""The loader's state: the last imports of the files and what of them is stored; no I/O."""

import operator
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from pubsubflow.loader.fresh_conflicts import with_conflicts
from pubsubflow.loader.messages import ImportResult
from pubsubflow.loader.snapshot import Bundle, Snapshot
from pubsubflow.model.schedule.checks import CHECK_PREFIX, check_name
from pubsubflow.model.schedule.conditions import ticks
from pubsubflow.model.schedule.timetable import TableSpec
from pubsubflow.model.source.bundles import contents
from pubsubflow.model.spec import LoadedFile

_MOST_RETRY_SECONDS = 600.0


class FileChanges(NamedTuple):
    """What differs from what is stored.

    Attributes:
        save: Imports to store.
        advance: Files whose DAGs are the same in another bundle: hash of the bundle → files.
        remove: Files that are gone.
    """

    save: list[LoadedFile]
    advance: dict[str, list[str]]
    remove: list[str]


class _Definition(NamedTuple):
    """A DAG or webhook, whose name only one file may define."""

    kind: str
    name: str
    keyword: str


class _Import(NamedTuple):
    """A file's last import.

    Attributes:
        found: What stood under the names that it read; another import is needed when it differs.
        failures: How often it has failed for a reason that may lie outside, one after the other.
        retry_at: When it is tried again for that reason.
        renew_at: When the ticks of its own timetables are computed again, seconds since 1970.
    """

    result: ImportResult
    found: Mapping[str, str]
    failures: int = 0
    retry_at: float | None = None
    renew_at: float | None = None


class LoaderState:
    """The files' last imports, what has changed since, and what of it is stored.

    Args:
        retry_seconds: See `LoaderSettings`.
        wall_clock: Returns seconds since 1970.

    Attributes:
        snapshot: The last one.
        bundles: By hash, those of the snapshot and those that files were imported in.
    """

    def __init__(
        self, retry_seconds: float = 30.0, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._wall_clock = wall_clock
        self.snapshot = Snapshot()
        self.bundles: dict[str, Bundle] = {}
        self._retry_seconds = retry_seconds
        self._imports: dict[str, _Import] = {}
        self._stored: dict[str, LoadedFile | None] = {}

    def restore(self, files: Iterable[str]) -> None:
        """Set the files that are stored already, by an earlier loader."""
        self._stored = dict.fromkeys(files)

    def update(self, snapshot: Snapshot) -> None:
        """Take a new snapshot of the folder."""
        self.snapshot = snapshot
        for file in [file for file in self._imports if file not in snapshot.files]:
            del self._imports[file]
        self.bundles.update((each.hash, each) for each in snapshot.bundles.values())

    def add(self, imported: ImportResult, snapshot: Snapshot, now: float) -> None:
        """Add an import.

        Args:
            imported: The import.
            snapshot: What it was made from.
            now: Seconds of a clock that only goes forward.
        """
        file = imported.loaded.file
        if file not in self.snapshot.files:
            return  # it has gone meanwhile
        bundle = snapshot.bundle_of(file)
        self.bundles[bundle.hash] = bundle
        found = contents(bundle.manifest, imported.reads)
        before = self._imports.get(file)
        failures, retry_at = 0, None
        if imported.outside:
            failures = 1 + (before.failures if before is not None else 0)
            delay = self._retry_seconds * 2.0 ** min(failures - 1, 10)
            retry_at = now + min(delay, max(_MOST_RETRY_SECONDS, self._retry_seconds))
        renew_at = _renew_at(imported.loaded)
        self._imports[file] = _Import(imported, found, failures, retry_at, renew_at)

    def is_stale(self, file: str, now: float) -> bool:
        """Return whether a DAG file must be imported (again)."""
        entry = self._imports.get(file)
        if entry is None:
            return True
        bundle = self.snapshot.bundle_of(file)
        loaded = entry.result.loaded
        if loaded.bundle != bundle.hash:
            # After an error any change counts: what the file would have read further is not known.
            if loaded.error is not None or contents(bundle.manifest, entry.found) != entry.found:
                return True
            self._imports[file] = entry._replace(result=_moved(entry.result, bundle.hash))
        if entry.renew_at is not None and entry.renew_at <= self._wall_clock():
            return True
        return entry.retry_at is not None and entry.retry_at <= now

    def drop_bundles(self) -> None:
        """Drop the bundles that neither the snapshot is of nor a file was imported in."""
        used = {each.result.loaded.bundle for each in self._imports.values()}
        used.update(each.hash for each in self.snapshot.bundles.values())
        self.bundles = {hash_: each for hash_, each in self.bundles.items() if hash_ in used}

    def forget(self) -> None:
        """Forget all imports, so that each file is imported again."""
        self._imports.clear()

    def used_variables(self) -> dict[str, tuple[Any, ...]]:
        """Return the variables that files have used, with the values that they had."""
        found: dict[str, tuple[Any, ...]] = {}
        for each in self._imports.values():
            found |= each.result.variables
        return found

    def forget_variables(self, names: Collection[str]) -> bool:
        """Forget the imports that have used one of some variables; return whether there were."""
        files = [
            file
            for file, each in self._imports.items()
            if not each.result.variables.keys().isdisjoint(names)
        ]
        for file in files:
            del self._imports[file]
        return bool(files)

    def next_retry(self) -> float | None:
        """Return when the next failed import is to be tried again."""
        times = [each.retry_at for each in self._imports.values() if each.retry_at is not None]
        return min(times, default=None)

    def changes(self) -> FileChanges:
        """Return what differs from what is stored."""
        wanted = resolve_owners({file: each.result for file, each in self._imports.items()})
        for path, error in self.snapshot.errors.items():
            wanted[path] = LoadedFile(path, error=error)
        save = []
        advance: dict[str, list[str]] = {}
        for file, loaded in wanted.items():
            stored = self._stored.get(file)
            if stored is None or not _same(stored, loaded):
                save.append(loaded)
            elif stored.bundle != loaded.bundle and loaded.error is None:
                advance.setdefault(loaded.bundle, []).append(file)
        known = self.snapshot.files.keys() | self.snapshot.errors.keys()
        return FileChanges(save, advance, sorted(self._stored.keys() - known))

    def saved(self, files: Iterable[LoadedFile]) -> None:
        """Mark files as stored."""
        self._stored.update({loaded.file: loaded for loaded in files})

    def advanced(self, bundle: str, files: Iterable[str]) -> None:
        """Mark the DAGs of files as moved to a bundle."""
        for file in files:
            stored = self._stored.get(file)
            if stored is not None:
                self._stored[file] = msgspec.structs.replace(stored, bundle=bundle)

    def removed(self, files: Iterable[str]) -> None:
        """Mark files as removed."""
        for file in files:
            self._stored.pop(file, None)


def _renew_at(loaded: LoadedFile) -> float | None:
    schedules = (dag.schedule for dag in loaded.dags)
    tables = (
        part.timetable
        for schedule in schedules
        for part in (() if schedule is None else ticks(schedule.condition))
    )
    moments = [each.renew_at for each in tables if isinstance(each, TableSpec)]
    return min((each for each in moments if each is not None), default=None)


def _moved(result: ImportResult, bundle: str) -> ImportResult:
    """Return an import as it would be in another bundle that differs in nothing it read."""
    return msgspec.structs.replace(
        result, loaded=msgspec.structs.replace(result.loaded, bundle=bundle)
    )


def resolve_owners(imports: Mapping[str, ImportResult]) -> dict[str, LoadedFile]:
    """Decide which file each DAG and webhook belongs to.

    A DAG that a merely imported DAG file defines belongs to that file. Of two files that define
    DAGs by one id, or webhooks by one name, the first in path order keeps it; the other gets an
    error. Of two that declare how fresh a dataset is to be, the longer time gets a warning.
    """
    owners: dict[_Definition, str] = {}
    resolved: dict[str, LoadedFile] = {}
    for file in sorted(imports):
        loaded = _without_foreign(imports[file], imports)
        twice = next((each for each in _definitions(loaded) if each in owners), None)
        if twice is not None:
            loaded = _refused(loaded, twice, owners[twice])
        owners.update((each, file) for each in _definitions(loaded))
        resolved[file] = loaded
    return with_conflicts(resolved)


def _definitions(loaded: LoadedFile) -> list[_Definition]:
    dags = [
        _Definition("check", check_name(dag.dag_id), "name")
        if dag.dag_id.startswith(CHECK_PREFIX)
        else _Definition("DAG", dag.dag_id, "dag_id")
        for dag in loaded.dags
    ]
    return dags + [_Definition("webhook", hook.name, "name") for hook in loaded.hooks]


def _without_foreign(imported: ImportResult, imports: Mapping[str, ImportResult]) -> LoadedFile:
    loaded = imported.loaded
    dags = {dag_id for dag_id, file in imported.foreign_dags.items() if file in imports}
    hooks = {name for name, file in imported.foreign_hooks.items() if file in imports}
    if not (dags or hooks):
        return loaded
    return msgspec.structs.replace(
        loaded,
        dags=tuple(dag for dag in loaded.dags if dag.dag_id not in dags),
        hooks=tuple(hook for hook in loaded.hooks if hook.name not in hooks),
    )


def _refused(loaded: LoadedFile, definition: _Definition, owner: str) -> LoadedFile:
    return msgspec.structs.replace(
        loaded,
        dags=(),
        hooks=(),
        error=f"{loaded.file}: {definition.kind} {definition.name!r} is defined by {owner} too; "
        f"give one of them another {definition.keyword}",
    )


def _same(stored: LoadedFile, loaded: LoadedFile) -> bool:
    """Return whether nothing but the bundle may differ."""
    # By identity: a new import makes new specs, and comparing the contents of thousands of DAGs
    # at every change would take longer than storing one file again.
    return (
        (stored.error, stored.source) == (loaded.error, loaded.source)
        and _identical(stored.dags, loaded.dags)
        and _identical(stored.hooks, loaded.hooks)
        and stored.datasets == loaded.datasets
        and stored.warnings == loaded.warnings
    )


def _identical(stored: Sequence[object], loaded: Sequence[object]) -> bool:
    return len(stored) == len(loaded) and all(map(operator.is_, stored, loaded))
