"""Records of imports: what decided each, compared at a start, so that nothing is imported twice."""

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import msgspec
from msgspec import Struct

import pubsubflow
from pubsubflow.loader.evidence import module_names, signature
from pubsubflow.loader.messages import ImportResult
from pubsubflow.loader.settings import LoaderSettings
from pubsubflow.model.source.stored_imports import StoredImport

_PACKAGES = (".dist-info", ".egg-info", ".egg-link", ".pth")
# What Python itself and the C library read of the environment.
_UNSEEN = ("PYTHON", "LC_", "LANG", "TZ", "HOME", "USER")


class ImportRecord(Struct, frozen=True, array_like=True):
    """An import, and what decided it.

    Attributes:
        surroundings: See `ImportSurroundings.key`.
        result: The import; the files are those of its `loaded.bundle`.
        found: What stood under the names that it read of its bundle.
    """

    surroundings: str
    result: ImportResult
    found: dict[str, str]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ImportRecord).decode


class ImportSurroundings(Struct, frozen=True):
    """What decides all imports of a loader.

    Attributes:
        key: A digest of Python, pubsubflow, the installed distributions, and the settings.
        environment: The environment of imports.
    """

    key: str
    environment: dict[str, str]

    @classmethod
    def read(
        cls,
        root: Path,
        kinds: Mapping[str, str],
        settings: LoaderSettings,
        environment: Mapping[str, str],
    ) -> "ImportSurroundings":
        """Return those of this moment.

        Args:
            root: The DAGs folder.
            kinds: See `Folder`.
            settings: Those of the loader.
            environment: That of imports.
        """
        search = [each for each in environment.get("PYTHONPATH", "").split(os.pathsep) if each]
        facts = (
            *(sys.version, sys.prefix, sys.platform, str(sys.flags)),
            *(str(os.getuid()), str(root), repr(sorted(kinds.items()))),
            *(repr(settings.import_seconds), repr(settings.files_a_process)),
            *(f"{each}={environment[each]}" for each in sorted(environment) if _is_unseen(each)),
            *_own_files(Path(pubsubflow.__file__).parent),
            *_distributions(sys.path),
            *_modules(search),
        )
        digest = hashlib.blake2b(digest_size=16)
        for each in facts:
            digest.update(f"{each}\0".encode(errors="surrogateescape"))
        return cls(digest.hexdigest(), dict(environment))

    def record(self, result: ImportResult, found: Mapping[str, str]) -> bytes | None:
        """Return the record of an import; None for one that is always to be repeated."""
        loaded = result.loaded
        if result.evidence is None or loaded.error is not None:
            return None
        # A bundle that only callbacks need stands nowhere in the store to be compared with.
        if loaded.calls_code and not loaded.dags:
            return None
        return _encode(ImportRecord(self.key, result, dict(found)))

    def restore(self, stored: Mapping[str, StoredImport]) -> dict[str, ImportRecord]:
        """Return the imports that would be the same again, as far as files of bundles go."""
        sign = lru_cache(maxsize=None)(signature)
        found = {}
        for file, each in stored.items():
            record = _as_stored(each)
            evidence = None if record is None else record.result.evidence
            if (
                record is not None
                and evidence is not None
                and record.surroundings == self.key
                and record.result.loaded.file == file
                and evidence.holds(self.environment, sign)
            ):
                found[file] = record
        return found


def _as_stored(stored: StoredImport) -> ImportRecord | None:
    """Return a record, in the bundle that the store has; None if that has other DAGs."""
    try:
        record = _decode(stored.record)
    except msgspec.DecodeError:
        return None  # of another version
    loaded = record.result.loaded
    if sorted(dag.dag_id for dag in loaded.dags) != sorted(stored.dag_ids):
        return None
    if not loaded.dags:
        return record
    if len(stored.bundles) != 1:
        return None
    loaded = msgspec.structs.replace(loaded, bundle=stored.bundles[0])
    return msgspec.structs.replace(
        record, result=msgspec.structs.replace(record.result, loaded=loaded)
    )


def _is_unseen(name: str) -> bool:
    return name.startswith(_UNSEEN)


def _own_files(folder: Path) -> Iterator[str]:
    """Yield the signatures of this package: while it is developed its version stays."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if name.endswith((".py", ".so")):
                yield f"{place}/{name} {signature(f'{place}/{name}')}"


def _distributions(path: Sequence[str]) -> Iterator[str]:
    """Yield what is installed: names with versions, and when it was."""
    for place in path:
        for name in _listed(place):
            if name.endswith(_PACKAGES):
                yield f"{place}/{name} {signature(f'{place}/{name}')}"


def _modules(path: Iterable[str]) -> Iterator[str]:
    """Yield the modules and packages of folders: a new one may be found in place of another."""
    for place in path:
        yield from (f"{place}/{name}" for name in module_names(place))


def _listed(place: str) -> list[str]:
    try:
        return sorted(os.listdir(place or "."))  # noqa: PTH208 - hundreds of names
    except OSError:
        return []
