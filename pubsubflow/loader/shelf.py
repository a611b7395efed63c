"""What the loader knows about the files, and what follows from it; no I/O."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec

from pubsubflow.loader.folder import Signature
from pubsubflow.loader.wire import Imported
from pubsubflow.model.structure import LoadedFile


class Changes(NamedTuple):
    """What is to be stored, and the files that are gone."""

    save: list[LoadedFile]
    remove: list[str]


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
    """Decide which file each DAG belongs to.

    A DAG made by another DAG file that was merely imported belongs to that one. Of two files that
    make DAGs by one id the first in path order keeps it; the other gets an error.
    """
    owners: dict[str, str] = {}
    settled: dict[str, LoadedFile] = {}
    for file in sorted(imports):
        loaded = _own(imports[file], imports)
        twice = next((dag.dag_id for dag in loaded.dags if dag.dag_id in owners), None)
        if twice is not None:
            loaded = _refused(loaded, twice, owners[twice])
        owners.update((dag.dag_id, file) for dag in loaded.dags)
        settled[file] = loaded
    return settled


def _own(imported: Imported, imports: Mapping[str, Imported]) -> LoadedFile:
    loaded = imported.loaded
    others = {dag_id for dag_id, file in imported.borrowed.items() if file in imports}
    if not others:
        return loaded
    dags = tuple(dag for dag in loaded.dags if dag.dag_id not in others)
    return msgspec.structs.replace(loaded, dags=dags)


def _refused(loaded: LoadedFile, dag_id: str, owner: str) -> LoadedFile:
    return msgspec.structs.replace(
        loaded,
        dags=(),
        error=f"{loaded.file}: DAG {dag_id!r} is made by {owner} too; "
        "give one of them another dag_id",
    )


def _same(stored: LoadedFile | None, loaded: LoadedFile) -> bool:
    """Tell whether nothing new is to be stored; DAGs of a new import count as new."""
    return stored is not None and (
        (stored.error, stored.bundle.hash) == (loaded.error, loaded.bundle.hash)
        and len(stored.dags) == len(loaded.dags)
        and all(one is other for one, other in zip(stored.dags, loaded.dags, strict=True))
        and (stored is loaded or bool(stored.error) or bool(stored.dags))
    )
