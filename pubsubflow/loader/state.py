"""The loader's state: the last imports of the files and what of them is stored; no I/O."""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from pubsubflow.loader.folder import FileSignature
from pubsubflow.loader.messages import ImportResult
from pubsubflow.model.spec import LoadedFile


class FileChanges(NamedTuple):
    """The files whose imports are to be stored, and those that are gone."""

    save: list[LoadedFile]
    remove: list[str]


class _Definition(NamedTuple):
    """A DAG or webhook, whose name only one file may define."""

    kind: str
    name: str
    keyword: str


class LoaderState:
    """The files' last imports, what has changed since, and what of it is stored.

    Attributes:
        generation: Counts the scans of the folder.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._signatures: dict[str, FileSignature] = {}
        self._changed: dict[str, int] = {}
        self._latest = 0
        self._present: frozenset[str] = frozenset()
        self._imports: dict[str, tuple[ImportResult, int]] = {}
        self._stored: dict[str, LoadedFile | None] = {}

    def restore(self, files: Iterable[str]) -> None:
        """Set the files that are stored already, by an earlier loader."""
        self._stored = dict.fromkeys(files)

    def update(
        self, signatures: Mapping[str, FileSignature], files: Iterable[str]
    ) -> frozenset[str]:
        """Compare a scan with the one before; return the paths that changed, came or went.

        Args:
            signatures: All Python files now.
            files: The DAG files among them.
        """
        changed = frozenset(path for path, _ in self._signatures.items() ^ signatures.items())
        self.generation += 1
        self._signatures = dict(signatures)
        for path in changed:
            self._changed[path] = self.generation
        if changed:
            self._latest = self.generation
        self._present = frozenset(files)
        for file in [file for file in self._imports if file not in self._present]:
            del self._imports[file]
        return changed

    def add(self, imported: ImportResult, generation: int) -> None:
        """Add an import that began at that generation."""
        self._imports[imported.loaded.file] = (imported, generation)

    def is_stale(self, file: str, read: Callable[[str], str | None]) -> bool:
        """Return whether a file must be imported (again).

        Args:
            file: A DAG file.
            read: Returns the text that a path holds now.
        """
        entry = self._imports.get(file)
        if entry is None:
            return True
        imported, generation = entry
        if imported.loaded.error is not None:
            # Any change counts: the modules that the file would have imported are not known.
            return self._latest > generation
        texts = imported.loaded.bundle.files
        newer = [path for path in texts if self._changed.get(path, 0) > generation]
        if any(read(path) != texts[path] for path in newer):
            return True
        self._imports[file] = (imported, self.generation)
        return False

    def changes(self) -> FileChanges:
        """Return what differs from what is stored."""
        resolved = resolve_owners({file: imported for file, (imported, _) in self._imports.items()})
        save = [
            loaded for file, loaded in resolved.items() if not _same(self._stored.get(file), loaded)
        ]
        return FileChanges(save, sorted(file for file in self._stored if file not in self._present))

    def saved(self, files: Iterable[LoadedFile]) -> None:
        """Mark files as stored."""
        self._stored.update({loaded.file: loaded for loaded in files})

    def removed(self, files: Iterable[str]) -> None:
        """Mark files as removed."""
        for file in files:
            self._stored.pop(file, None)


def resolve_owners(imports: Mapping[str, ImportResult]) -> dict[str, LoadedFile]:
    """Decide which file each DAG and webhook belongs to.

    A DAG that a merely imported DAG file defines belongs to that file. Of two files that define
    DAGs by one id, or webhooks by one name, the first in path order keeps it; the other gets an
    error.
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
    return resolved


def _definitions(loaded: LoadedFile) -> list[_Definition]:
    dags = [_Definition("DAG", dag.dag_id, "dag_id") for dag in loaded.dags]
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


def _same(stored: LoadedFile | None, loaded: LoadedFile) -> bool:
    """Return whether nothing new is to be stored."""
    # By identity: a new import makes new specs, and comparing the contents of thousands of DAGs
    # at every change would take longer than storing one file again.
    return stored is not None and (
        (stored.error, stored.bundle.hash) == (loaded.error, loaded.bundle.hash)
        and _identical(stored.dags, loaded.dags)
        and _identical(stored.hooks, loaded.hooks)
        and (stored is loaded or bool(stored.error or stored.dags or stored.hooks))
    )


def _identical(stored: Sequence[object], loaded: Sequence[object]) -> bool:
    return len(stored) == len(loaded) and all(map(operator.is_, stored, loaded))
