"""What the loader knows about the files, and what follows from it; no I/O."""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from pubsubflow.loader.folder import Signature
from pubsubflow.loader.messages import Imported
from pubsubflow.model.spec import LoadedFile


class Changes(NamedTuple):
    """What is to be stored, and the files that are gone."""

    save: list[LoadedFile]
    remove: list[str]


class _Thing(NamedTuple):
    """What has a name that no other file may take."""

    kind: str
    name: str
    keyword: str


class Shelf:
    """The files' last imports, what changed since, and what of it is stored."""

    def __init__(self) -> None:
        self.generation = 0
        self._signatures: dict[str, Signature] = {}
        self._changed: dict[str, int] = {}
        self._latest = 0
        self._present: frozenset[str] = frozenset()
        self._imports: dict[str, tuple[Imported, int]] = {}
        self._stored: dict[str, LoadedFile | None] = {}

    def known(self, files: Iterable[str]) -> None:
        """Take note of files that are stored from an earlier life."""
        self._stored = dict.fromkeys(files)

    def look(self, signatures: Mapping[str, Signature], files: Iterable[str]) -> frozenset[str]:
        """Compare with what was there before; return the paths that changed, came or went.

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

    def put(self, imported: Imported, generation: int) -> None:
        """Keep an import that began at that generation."""
        self._imports[imported.loaded.file] = (imported, generation)

    def stale(self, file: str, read: Callable[[str], str | None]) -> bool:
        """Tell whether a file must be imported (again).

        After an error any change counts, as nobody knows what the file would have imported.

        Args:
            file: A DAG file.
            read: Returns the text that a path holds now.
        """
        entry = self._imports.get(file)
        if entry is None:
            return True
        imported, generation = entry
        if imported.loaded.error is not None:
            return self._latest > generation
        texts = imported.loaded.bundle.files
        newer = [path for path in texts if self._changed.get(path, 0) > generation]
        if any(read(path) != texts[path] for path in newer):
            return True
        self._imports[file] = (imported, self.generation)
        return False

    def changes(self) -> Changes:
        """Return what differs from what is stored."""
        settled = settle({file: imported for file, (imported, _) in self._imports.items()})
        save = [
            loaded for file, loaded in settled.items() if not _same(self._stored.get(file), loaded)
        ]
        return Changes(save, sorted(file for file in self._stored if file not in self._present))

    def saved(self, files: Iterable[LoadedFile]) -> None:
        """Take note of what was stored."""
        self._stored.update({loaded.file: loaded for loaded in files})

    def removed(self, files: Iterable[str]) -> None:
        """Take note of what was removed."""
        for file in files:
            self._stored.pop(file, None)


def settle(imports: Mapping[str, Imported]) -> dict[str, LoadedFile]:
    """Decide which file each DAG and webhook belongs to.

    What another DAG file made that was merely imported belongs to that one. Of two files that make
    DAGs by one id, or webhooks by one name, the first in path order keeps it; the other gets an
    error.
    """
    owners: dict[_Thing, str] = {}
    settled: dict[str, LoadedFile] = {}
    for file in sorted(imports):
        loaded = _own(imports[file], imports)
        twice = next((thing for thing in _things(loaded) if thing in owners), None)
        if twice is not None:
            loaded = _refused(loaded, twice, owners[twice])
        owners.update((thing, file) for thing in _things(loaded))
        settled[file] = loaded
    return settled


def _things(loaded: LoadedFile) -> list[_Thing]:
    dags = [_Thing("DAG", dag.dag_id, "dag_id") for dag in loaded.dags]
    return dags + [_Thing("webhook", hook.name, "name") for hook in loaded.hooks]


def _own(imported: Imported, imports: Mapping[str, Imported]) -> LoadedFile:
    loaded = imported.loaded
    others = {dag_id for dag_id, file in imported.borrowed.items() if file in imports}
    doors = {name for name, file in imported.borrowed_hooks.items() if file in imports}
    if not (others or doors):
        return loaded
    return msgspec.structs.replace(
        loaded,
        dags=tuple(dag for dag in loaded.dags if dag.dag_id not in others),
        hooks=tuple(hook for hook in loaded.hooks if hook.name not in doors),
    )


def _refused(loaded: LoadedFile, thing: _Thing, owner: str) -> LoadedFile:
    return msgspec.structs.replace(
        loaded,
        dags=(),
        hooks=(),
        error=f"{loaded.file}: {thing.kind} {thing.name!r} is made by {owner} too; "
        f"give one of them another {thing.keyword}",
    )


def _same(stored: LoadedFile | None, loaded: LoadedFile) -> bool:
    """Tell whether nothing new is to be stored; what a new import made counts as new."""
    return stored is not None and (
        (stored.error, stored.bundle.hash) == (loaded.error, loaded.bundle.hash)
        and _identical(stored.dags, loaded.dags)
        and _identical(stored.hooks, loaded.hooks)
        and (stored is loaded or bool(stored.error or stored.dags or stored.hooks))
    )


def _identical(stored: Sequence[object], loaded: Sequence[object]) -> bool:
    return len(stored) == len(loaded) and all(map(operator.is_, stored, loaded))
