"""The loader's state: the last imports of the files and what of them is stored; no I/O."""

import operator
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from pubsubflow.loader.messages import ImportResult
from pubsubflow.loader.ownership import Ownership
from pubsubflow.loader.records import ImportRecord, ImportSurroundings
from pubsubflow.loader.snapshot import Bundle, Snapshot
from pubsubflow.model.schedule.conditions import ticks
from pubsubflow.model.schedule.timetable import TableSpec
from pubsubflow.model.source.bundles import Manifest, contents, names_of_changes
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


class _Import(Struct, frozen=True):
    """A file's last import; thousands are replaced at once when a bundle changes.

    Attributes:
        found: What stood under the names that it read; another import is needed when it differs.
        failures: How often it has failed for a reason that may lie outside, one after the other.
        retry_at: When it is tried again for that reason.
        renew_at: When the ticks of its own timetables are computed again, seconds since 1970.
        restored: Whether it was made by an earlier loader.
        verify: Whether it is to be repeated without there being a reason.
    """

    result: ImportResult
    found: Mapping[str, str]
    failures: int = 0
    retry_at: float | None = None
    renew_at: float | None = None
    restored: bool = False
    verify: bool = False


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
        self._ownership = Ownership()
        self._unsettled: set[str] = set()
        self._gone: set[str] = set()
        self._changed_names: dict[tuple[str, str], set[str]] = {}

    def restore(
        self,
        files: Iterable[str],
        records: Mapping[str, ImportRecord] | None = None,
        compiled: Mapping[str, ImportRecord] | None = None,
    ) -> None:
        """Set the files that are stored already, by an earlier loader.

        Args:
            files: All of them.
            records: Those imports of them that would be the same again if no file has changed.
            compiled: Imports of a manifest, of any files; these are not stored yet.
        """
        self._stored = dict.fromkeys(files)
        for file, record in (compiled or {}).items():
            self._set(file, _Import(record.result, record.found, restored=True))
        for file, record in (records or {}).items():
            loaded = self._stored[file] = record.result.loaded
            entry = _Import(record.result, record.found, renew_at=_renew_at(loaded))
            self._set(file, replace(entry, restored=True))

    def verify_uncertain(self) -> int:
        """Have the restored imports repeated whose outcome may differ; return their number."""
        uncertain = [
            (file, each)
            for file, each in self._imports.items()
            if each.restored and each.result.evidence and each.result.evidence.uncertain
        ]
        for file, each in uncertain:
            self._imports[file] = replace(each, verify=True)
        return len(uncertain)

    def update(self, snapshot: Snapshot) -> None:
        """Take a new snapshot of the folder."""
        # What could not be read, and can be now, is looked at again, and the other way round.
        self._unsettled |= self.snapshot.errors.keys() | snapshot.errors.keys()
        self.snapshot = snapshot
        for file in [file for file in self._imports if file not in snapshot.files]:
            self._drop(file)
        # Here, as changes are read after every few of thousands of imports.
        self._gone = self._stored.keys() - snapshot.files.keys() - snapshot.errors.keys()
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
        self._set(file, _Import(imported, found, failures, retry_at, renew_at))

    def _set(self, file: str, entry: _Import) -> None:
        self._imports[file] = entry
        self._ownership.put(file, entry.result)

    def _drop(self, file: str) -> None:
        del self._imports[file]
        self._ownership.discard(file)

    def is_stale(self, file: str, now: float) -> bool:
        """Return whether a DAG file must be imported (again)."""
        entry = self._imports.get(file)
        if entry is None or entry.verify:
            return True
        bundle = self.snapshot.bundle_of(file)
        loaded = entry.result.loaded
        # After an error any change counts: what the file would have read further is not known.
        if loaded.bundle != bundle.hash and (
            loaded.error is not None or self._reads_differ(entry, bundle)
        ):
            return True
        if entry.renew_at is not None and entry.renew_at <= self._wall_clock():
            return True
        return entry.retry_at is not None and entry.retry_at <= now

    def behind(self) -> list[str]:
        """Return the files whose imports are of another bundle than that of the snapshot."""
        return [
            file
            for file, entry in self._imports.items()
            if entry.result.loaded.bundle != self.snapshot.bundle_of(file).hash
        ]

    def move(self, file: str) -> None:
        """Move an import to the bundle of the snapshot, if that is the same for it."""
        entry = self._imports.get(file)
        if entry is None:
            return
        bundle, loaded = self.snapshot.bundle_of(file), entry.result.loaded
        if loaded.bundle == bundle.hash or loaded.error is not None:
            return
        if not self._reads_differ(entry, bundle):
            moved = _moved(entry.result, bundle.hash)
            self._imports[file] = replace(entry, result=moved)
            self._ownership.move(file, moved)

    def _reads_differ(self, entry: _Import, bundle: Bundle) -> bool:
        """Return whether a bundle has something else for an import than its own one."""
        before = self.bundles.get(entry.result.loaded.bundle)
        if before is not None:
            # Who reads it has changed: another interpreter may find something else in it.
            if before.manifest.kind != bundle.manifest.kind:
                return True
            # Each of thousands of files comes here when one of them changes.
            if entry.found.keys().isdisjoint(self._names_of_changes(before, bundle)):
                return False
        return contents(bundle.manifest, entry.found) != entry.found

    def _names_of_changes(self, before: Bundle, after: Bundle) -> set[str]:
        key = before.hash, after.hash
        if key not in self._changed_names:
            self._changed_names[key] = names_of_changes(before.manifest, after.manifest)
        return self._changed_names[key]

    def stored_like(self, bundle: Bundle, stored: Collection[str]) -> tuple[str, Manifest] | None:
        """Return hash and manifest of the last stored bundle of the same base, if there is one."""
        base = bundle.manifest.base
        for each in reversed(self.bundles.values()):
            if each.hash in stored and each.manifest.base == base:
                return each.hash, each.manifest
        return None

    def drop_bundles(self) -> None:
        """Drop the bundles that neither the snapshot is of nor a file was imported in."""
        used = {each.result.loaded.bundle for each in self._imports.values()}
        used.update(each.hash for each in self.snapshot.bundles.values())
        self.bundles = {hash_: each for hash_, each in self.bundles.items() if hash_ in used}
        self._changed_names.clear()

    def forget(self) -> None:
        """Forget all imports, so that each file is imported again."""
        for file in list(self._imports):
            self._drop(file)

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
            self._drop(file)
        return bool(files)

    def next_retry(self) -> float | None:
        """Return when the next failed import is to be tried again."""
        times = [each.retry_at for each in self._imports.values() if each.retry_at is not None]
        return min(times, default=None)

    def changes(self) -> FileChanges:
        """Return what differs from what is stored."""
        self._unsettled |= self._ownership.settle()
        save = []
        advance: dict[str, list[str]] = {}
        for file in sorted(self._unsettled):
            loaded = self._ownership.resolved.get(file)
            if loaded is None or file in self.snapshot.errors:
                continue
            stored = self._stored.get(file)
            if stored is None or not _same(stored, loaded):
                save.append(loaded)
            elif stored.bundle != loaded.bundle and loaded.error is None:
                advance.setdefault(loaded.bundle, []).append(file)
        self._unsettled = {loaded.file for loaded in save}.union(*advance.values())
        for path, error in self.snapshot.errors.items():
            failed = LoadedFile(path, error=error)
            stored = self._stored.get(path)
            if stored is None or not _same(stored, failed):
                save.append(failed)
        return FileChanges(save, advance, sorted(self._gone))

    def records(
        self, files: Iterable[LoadedFile], surroundings: ImportSurroundings
    ) -> dict[str, bytes]:
        """Return file → record of those whose imports are stored just as they were."""
        found = {}
        for loaded in files:
            entry = self._imports.get(loaded.file)
            if entry is None or entry.result.loaded is not loaded:
                continue  # what is stored of it depends on other files, too
            record = surroundings.record(entry.result, entry.found)
            if record is not None:
                found[loaded.file] = record
        return found

    def saved(self, files: Iterable[LoadedFile]) -> None:
        """Mark files as stored."""
        for loaded in files:
            self._stored[loaded.file] = loaded
            if not self._is_known(loaded.file):
                self._gone.add(loaded.file)  # while it was stored

    def advanced(self, bundle: str, files: Iterable[str]) -> None:
        """Mark the DAGs of files as moved to a bundle."""
        for file in files:
            stored = self._stored.get(file)
            if stored is not None:
                self._stored[file] = replace(stored, bundle=bundle)
                # What has changed meanwhile is settled anew: thousands need not be looked at.
                self._unsettled.discard(file)

    def removed(self, files: Iterable[str]) -> None:
        """Mark files as removed."""
        for file in files:
            self._stored.pop(file, None)
            self._gone.discard(file)

    def _is_known(self, file: str) -> bool:
        return file in self.snapshot.files or file in self.snapshot.errors


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
    return replace(result, loaded=replace(result.loaded, bundle=bundle))


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
    return stored is loaded or (
        len(stored) == len(loaded) and all(map(operator.is_, stored, loaded))
    )
