"""The comparison of a manifest with the folder and the environment of a start."""

import hashlib
import stat
from collections.abc import Iterator
from pathlib import Path

from pubsubflow.errors import ConfigError
from pubsubflow.loader.compiled.environment import package_version, python_version
from pubsubflow.loader.folder import Folder, FolderScan
from pubsubflow.loader.settings import LoaderSettings
from pubsubflow.loader.snapshot import scan_folder
from pubsubflow.model.source.bundles import BundleFile, bundle_hash
from pubsubflow.model.source.compiled import CompiledFolder, ImportEnvironment, read_compiled

_SHOWN = 8


def read_manifest(path: Path, dags: Path, settings: LoaderSettings) -> CompiledFolder:
    """Return the manifest of a folder as it is now.

    Args:
        path: The manifest.
        dags: The DAGs folder, or a single DAG file.
        settings: Limits.

    Raises:
        ConfigError: It cannot be read, or folder or environment are not those that it is of; the
            text names what differs.
    """
    compiled = read_compiled(path)
    check_whole(compiled, path)
    differing = [
        *environment_differences(compiled.environment),
        *folder_differences(compiled, Folder(dags), settings),
    ]
    if differing:
        more = f" (and {len(differing) - _SHOWN} more)" if len(differing) > _SHOWN else ""
        raise ConfigError(
            f"manifest {path} is out of date: {', '.join(differing[:_SHOWN])}{more}; compile the "
            f"folder again (`pubsubflow compile {dags} -o {path}`), or start without --manifest"
        )
    return compiled


def check_whole(compiled: CompiledFolder, path: Path) -> None:
    """Check that a manifest agrees with itself: that no part of it was edited.

    Raises:
        ConfigError: It does not.
    """
    for hash_, bundle in compiled.bundles.items():
        if bundle_hash(bundle.base, bundle.files) != hash_:
            raise _edited(path, f"bundle {hash_}")
    for file, each in compiled.files.items():
        found = compiled.bundles.get(each.bundle)
        base = "" if found is None or not found.base else f"{found.base}/"
        named = (
            *((dag.dag_id, name) for name, dag in each.dags.items()),
            *((dataset.uri, name) for name, dataset in each.datasets.items()),
            *((hook.name, name) for name, hook in each.hooks.items() if hook is not None),
            *((dag.file, file) for dag in each.dags.values()),
        )
        is_there = found is not None and file.removeprefix(base) in found.files
        if not is_there or any(one != other or "\0" in one for one, other in named):
            raise _edited(path, file)


def _edited(path: Path, place: str) -> ConfigError:
    return ConfigError(
        f"manifest {path} contradicts itself at {place}: it was edited, or is cut off; write it "
        f"anew (`pubsubflow compile DAGS -o {path}`)"
    )


def environment_differences(written: ImportEnvironment) -> Iterator[str]:
    """Yield what of the environment is another than where the manifest was written."""
    if written.python != python_version():
        yield f"Python {written.python} is {python_version()} here"
    for name, version in sorted(written.packages.items()):
        here = package_version(name)
        if here != version:
            yield f"{name} {version} is {here or 'missing'} here"


def folder_differences(
    compiled: CompiledFolder, folder: Folder, settings: LoaderSettings
) -> Iterator[str]:
    """Yield which files have changed, are new or are gone, and what else is another.

    Raises:
        ConfigError: The folder cannot be read.
    """
    try:
        scan = scan_folder(folder, settings)
    except OSError as error:
        raise ConfigError(
            f"the DAGs folder {folder.root} cannot be read: {error.strerror}"
        ) from error
    if scan.cut:
        yield f"{folder.root} has more than {settings.max_bundle_files:,} files"
        return
    written = {
        f"{bundle.base}/{path}" if bundle.base else path: file
        for bundle in compiled.bundles.values()
        for path, file in bundle.files.items()
    }
    for path in sorted({*written, *scan.files}):
        difference = _difference(folder, scan, path, written.get(path))
        if difference:
            yield f"{path} {difference}"
    bases = {bundle.base for bundle in compiled.bundles.values()}
    for base in sorted(bases ^ scan.bases):
        yield f"{base or '.'} is {'not ' if base in bases else ''}a bundle of its own here"
    for file in sorted({*compiled.files} ^ {*folder.dag_files(scan)}):
        if file in scan.files and file in written:
            yield f"{file} is {'not ' if file in compiled.files else ''}a DAG file here"


def _difference(folder: Folder, scan: FolderScan, path: str, written: BundleFile | None) -> str:
    """Return what of a file is another than in the manifest; empty if nothing is."""
    signature = scan.files.get(path)
    if signature is None:
        return "cannot be read" if path in scan.unreadable else "is gone"
    if written is None:
        return "is new"
    if written.size != signature.size or written.hash != _hash(folder, path):
        return "has changed"
    if written.executable != bool(signature.mode & stat.S_IXUSR):
        return f"is {'not ' * written.executable}executable here"
    return ""


def _hash(folder: Folder, path: str) -> str:
    """Return the hash of a file's content; an empty one if it cannot be read."""
    try:
        with Path(folder.root, path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
