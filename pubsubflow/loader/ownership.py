"""Ownership: which file each DAG and webhook belongs to, where several define it; no I/O."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from pubsubflow.loader.fresh_conflicts import with_conflicts
from pubsubflow.loader.messages import ImportResult
from pubsubflow.model.schedule.checks import CHECK_PREFIX, check_name
from pubsubflow.model.spec import LoadedFile


class _Definition(NamedTuple):
    """A DAG or webhook, whose name only one file may define."""

    kind: str
    name: str
    keyword: str


class Ownership:
    """The files' imports, each with what belongs to it; decided anew for what has changed.

    Attributes:
        resolved: File → its import, with what belongs to it.
    """

    def __init__(self) -> None:
        self.resolved: dict[str, LoadedFile] = {}
        self._imports: dict[str, ImportResult] = {}
        self._changed: set[str] = set()
        self._definers: Counter[_Definition] = Counter()
        self._shared = 0  # names that several files define, and files that define others' names
        self._settled_all = False

    def put(self, file: str, result: ImportResult) -> None:
        """Set a file's last import."""
        self.discard(file)
        self._imports[file] = result
        self._count(result, 1)

    def move(self, file: str, result: ImportResult) -> None:
        """Set a file's last import anew, which differs in its bundle alone."""
        self._changed.add(file)
        self._imports[file] = result

    def discard(self, file: str) -> None:
        """Forget a file."""
        self._changed.add(file)
        before = self._imports.pop(file, None)
        if before is not None:
            self._count(before, -1)

    def settle(self) -> set[str]:
        """Decide what belongs to whom; return the files for which that may have changed."""
        changed, self._changed = self._changed, set()
        if not changed:
            return changed
        # Almost always each name is defined once: then a file's import stands for itself. What was
        # decided among several files is decided anew also when they are no longer several.
        if self._shared or self._settled_all:
            self._settled_all = self._shared > 0
            before, self.resolved = self.resolved, resolve_owners(self._imports)
            return {*before, *self.resolved}
        for file in changed:
            result = self._imports.get(file)
            if result is None:
                self.resolved.pop(file, None)
            else:
                self.resolved[file] = result.loaded
        return changed

    def _count(self, result: ImportResult, number: int) -> None:
        for each in (*_definitions(result.loaded), *_declarations(result.loaded)):
            before = self._definers[each]
            self._definers[each] = count = before + number
            self._shared += (count > 1) - (before > 1)
            if not count:
                del self._definers[each]
        if result.foreign_dags or result.foreign_hooks:
            self._shared += number


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


def _declarations(loaded: LoadedFile) -> list[_Definition]:
    """Return how fresh a file declares datasets to be: of several, the shortest time counts."""
    fresh = (each.uri for each in loaded.datasets if each.fresh is not None)
    return [_Definition("freshness", uri, "fresh") for uri in fresh]


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
