"""Bundles: the files of a DAGs folder by content, and the source of a run that workers request."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from operator import itemgetter
from posixpath import dirname
from typing import Any

from msgspec import Struct

from pubsubflow.model.spec import TaskSpec

MARKER = ".pubsubflowbundle"
"""A folder that holds a file of this name is a bundle of its own."""
IGNORE_FILE = ".pubsubflowignore"
_HASH_CHARACTERS = 32
_VERSION_CHARACTERS = 12


class BundleFile(Struct, frozen=True, array_like=True):
    """A file of a bundle: SHA-256 of its content, size in bytes, and whether it is executable."""

    hash: str
    size: int
    executable: bool = False


class Manifest(Struct, frozen=True):
    """The content of a bundle.

    Attributes:
        root: Path of the folder where the loader found it; what users see in errors.
        base: That folder's path relative to the DAGs folder; empty for the DAGs folder itself.
        files: Path relative to `root`, with `/` → file.
        isolated: Folders whose modules must not meet others of the same name in one process.
        kind: Who reads its DAG files, with what that needs, if they are not Python for this
            interpreter: `airflow:…`.
    """

    root: str
    base: str
    files: dict[str, BundleFile]
    isolated: tuple[str, ...] = ()
    kind: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


class DagSource(Struct, frozen=True):
    """The code of a run of one DAG: where it is, and the graph that it must make.

    Attributes:
        source: The key that task messages carry; see `source_key`.
        bundle: Hash of its bundle.
        file: The DAG file, relative to the bundle's folder.
        dag_id: The DAG.
        tasks: The tasks of the run's version.
        variables: See `DagSpec`.
    """

    source: str
    bundle: str
    file: str
    dag_id: str
    tasks: tuple[TaskSpec, ...]
    variables: dict[str, tuple[Any, ...]] = {}


class SourceIds(Struct, frozen=True):
    """What a source key names: a bundle, and a version with the beginning of its hash."""

    bundle: str
    version: int
    version_hash: str


def bundle_hash(base: str, files: Mapping[str, BundleFile], kind: str = "") -> str:
    """Return the hash of a bundle, 32 hexadecimal characters."""
    digest = hashlib.sha256(f"{base}\n".encode())
    if kind:
        digest.update(f"kind {kind}\n".encode())
    lines = [
        f"{path}\0{file.hash}\0{file.size}\0{file.executable:d}\n"
        for path, file in sorted(files.items(), key=itemgetter(0))
    ]
    digest.update("".join(lines).encode())
    return digest.hexdigest()[:_HASH_CHARACTERS]


def source_key(bundle: str, version: int, version_hash: str) -> str:
    """Return the key of a version in a bundle.

    It names contents by their hashes, so that a worker that outlives its database never takes
    another database's version for this one.
    """
    return f"{bundle}-{version}-{version_hash[:_VERSION_CHARACTERS]}"


def parse_source_key(key: str) -> SourceIds | None:
    """Return what a source key names; None for a text that is not one."""
    bundle, _, rest = key.partition("-")
    version, _, version_hash = rest.partition("-")
    if not (bundle and version_hash and version.isdecimal()):
        return None
    return SourceIds(bundle, int(version), version_hash)


def contents(manifest: Manifest, names: Iterable[str]) -> dict[str, str]:
    """Return what stands under names: a file's hash; for `folder/` the hash of the names in it.

    A name that is not there has an empty text: that it is missing is a fact about a bundle, too.
    """
    listings: dict[str, set[str]] | None = None
    found = {}
    for name in names:
        file = manifest.files.get(name)
        if file is not None:
            found[name] = f"{file.hash}{'x' if file.executable else ''}"
        elif name.endswith("/"):
            listings = _listings(manifest.files) if listings is None else listings
            listed = "\n".join(sorted(listings.get(name, ())))
            found[name] = hashlib.sha256(listed.encode()).hexdigest()
        else:
            found[name] = ""
    return found


def names_of_changes(before: Manifest, after: Manifest) -> set[str]:
    """Return the names under which two bundles may hold something else; see `contents`."""
    names = {
        path
        for path in before.files.keys() | after.files.keys()
        if before.files.get(path) != after.files.get(path)
    }
    return names | _folders_of(names)


def _folders_of(paths: Iterable[str]) -> set[str]:
    """Return the folders on the way to files, written with a slash at their end."""
    found: set[str] = set()
    for path in paths:
        folder = dirname(path)
        while f"{folder}/" not in found:
            found.add(f"{folder}/")
            folder = dirname(folder)
    return found


def contents_hash(found: Mapping[str, str]) -> str:
    """Return the hash of what stands under names, hexadecimal."""
    digest = hashlib.sha256()
    for name, value in sorted(found.items()):
        digest.update(f"{name}\0{value}\n".encode())
    return digest.hexdigest()


def _listings(paths: Iterable[str]) -> dict[str, set[str]]:
    """Return per folder, written with a slash at its end, the names in it."""
    found: dict[str, set[str]] = {}
    for path in paths:
        name = path
        while name:
            folder = dirname(name)
            names = found.setdefault(f"{folder}/", set())
            known = name.rpartition("/")[2]
            if known in names:
                break
            names.add(known)
            name = folder
    return found


def isolation(isolated: Collection[str], file: str) -> str:
    """Return which DAG files of a bundle may share a process with one: those of equal isolation.

    Args:
        isolated: The folders whose modules must not meet others of the same name.
        file: The DAG file, relative to the bundle's folder.

    Returns:
        The innermost isolated folder around the file. Outside of them it is the file itself, as it
        may reach into any of them; without such folders all files share a process.
    """
    if not isolated:
        return ""
    folder = dirname(file)
    while folder not in isolated:
        if not folder:
            return file
        folder = dirname(folder)
    return f"{folder}/"


def isolated_folders(paths: Iterable[str], imported: Collection[str]) -> tuple[str, ...]:
    """Return the folders that hold a module or package whose name stands in another folder, too.

    Args:
        paths: The files of a bundle.
        imported: The names that some file imports as top-level modules: others cannot clash.
    """
    folders: dict[str, set[str]] = {}
    for path in paths:
        if not path.endswith(".py"):
            continue
        name = path.removesuffix(".py").removesuffix("/__init__")
        while name:
            folder, _, last = name.rpartition("/")
            if last in imported:
                folders.setdefault(last, set()).add(folder)
            name = folder
    clashing = {folder for found in folders.values() if len(found) > 1 for folder in found}
    return tuple(sorted(clashing))
