"""Snapshots of the DAGs folder: its bundles by content, with their files kept in the cache."""

import re
import stat
import time
from pathlib import Path
from threading import Thread

import structlog
from msgspec import Struct, field

from pubsubflow.loader.folder import FileSignature, Folder, FolderScan
from pubsubflow.loader.settings import LoaderSettings
from pubsubflow.model.recent import Recent
from pubsubflow.model.source.bundles import (
    IGNORE_FILE,
    BundleFile,
    Manifest,
    bundle_hash,
    isolated_folders,
)
from pubsubflow.runner.caches.bundle_cache import BundleCache

log = structlog.get_logger(__name__)

FOLDER = "."
"""The name under which an error of the DAGs folder as a whole is shown."""
_REMEDY = f"move it elsewhere, name it in {IGNORE_FILE}"
_IMPORTS = re.compile(
    rb"^[ \t]*(?:from[ \t]+(\w+)|import[ \t]+([\w \t,.]+))"
    rb"|(?:import_module|__import__)\(\s*[\"'](\w+)",
    re.MULTILINE,
)
_WORD = re.compile(rb"(?:^|,)\s*(\w+)")
_KEPT_FILES = 50_000
_SETTLED_NS = 100_000_000
_UNSETTLED = FileSignature(0, 0, 0, 0)
_Known = tuple[FileSignature, BundleFile]


class Bundle(Struct, frozen=True):
    """A bundle of the folder: its hash and its content."""

    hash: str
    manifest: Manifest

    def path_of(self, file: str) -> str:
        """Return a file's path in the bundle, from its path in the DAGs folder."""
        base = self.manifest.base
        return file[len(base) + 1 :] if base else file


class Snapshot(Struct, frozen=True):
    """The folder at one moment.

    Attributes:
        bundles: Base → bundle.
        files: The DAG files, sorted → the base of the bundle that each belongs to.
        errors: Path → why it cannot be a part of a bundle.
        skipped: Path → why it is left out, for errors of imports that miss it.
    """

    bundles: dict[str, Bundle] = {}
    files: dict[str, str] = {}
    errors: dict[str, str] = {}
    skipped: dict[str, str] = {}

    def bundle_of(self, file: str) -> Bundle:
        """Return the bundle of a DAG file."""
        return self.bundles[self.files[file]]

    def file(self, file: str) -> BundleFile | None:
        """Return the content of a DAG file; None when it is not there."""
        if file not in self.files:
            return None
        bundle = self.bundle_of(file)
        return bundle.manifest.files[bundle.path_of(file)]


class _Base(Struct):
    """The files of one bundle that is being put together."""

    files: dict[str, BundleFile] = field(default_factory=dict)
    size: int = 0
    error: tuple[str, str] | None = None


class SnapshotReader:
    """Reads snapshots; a file that has not changed since the last one is not read again.

    Args:
        folder: The DAGs folder.
        cache: Keeps the files.
        settings: Limits.
    """

    def __init__(self, folder: Folder, cache: BundleCache, settings: LoaderSettings) -> None:
        self._folder = folder
        self._cache = cache
        self._settings = settings
        self._known: dict[str, _Known] = {}
        self._imports: Recent[str, frozenset[str]] = Recent(_KEPT_FILES)
        self._bundles: dict[str, Bundle] = {}

    def read(self) -> Snapshot:
        """Return the folder as it is now; to be called in the cache's `filling`.

        Where a limit is exceeded, the bundle is the one of the snapshot before, if there was one.

        Raises:
            OSError: The folder cannot be read, or the cache cannot be written.
        """
        scan = scan_folder(self._folder, self._settings)
        bases = {base: _Base() for base in scan.bases}
        if scan.cut:
            bases[""].error = (FOLDER, self._too_many_files())
        known, self._known = self._known, {}
        for path, signature in scan.files.items():
            base = scan.base_of(path)
            if bases[base].error is None:
                self._add(bases[base], path, base, signature, known.get(path), scan)
        self._bundles = {
            base: bundle
            for base, found in bases.items()
            if (bundle := self._bundle(base, found)) is not None
        }
        errors = dict(found.error for found in bases.values() if found.error is not None)
        return self._snapshot(scan, errors)

    def forget(self) -> None:
        """Have all files read again: some that the cache had are not there any more."""
        self._known.clear()

    def _snapshot(self, scan: FolderScan, errors: dict[str, str]) -> Snapshot:
        files = {}
        for file in self._folder.dag_files(scan):
            base = scan.base_of(file)
            bundle = self._bundles.get(base)
            if bundle is not None and bundle.path_of(file) in bundle.manifest.files:
                files[file] = base
        for path in scan.unreadable:
            if path.endswith(".py"):
                reason = scan.skipped[path]
                errors[path] = f"{self._folder.path_of(path)}: it cannot be read: {reason}"
        return Snapshot(self._bundles, files, errors, scan.skipped)

    def _add(
        self,
        base: _Base,
        path: str,
        name: str,
        signature: FileSignature,
        known: _Known | None,
        scan: FolderScan,
    ) -> None:
        """Add a file to its bundle, unless it exceeds a limit or cannot be read."""
        if known is None or known[0] != signature:
            try:
                known = self._ingest(path, signature)
            except OSError as error:
                # Whether it is gone or not to be read shows when something needs it.
                scan.refuse(path, error.strerror or str(error))
                return
        if known is None:
            base.error = (path, self._file_too_large(path, signature.size))
            return
        self._known[path] = known
        base.files[path[len(name) + 1 :] if name else path] = known[1]
        base.size += known[1].size
        if base.size > self._settings.max_bundle_bytes:
            base.error = (name or FOLDER, self._bundle_too_large(base))

    def _ingest(self, path: str, signature: FileSignature) -> _Known | None:
        """Keep a file in the cache; None when it is too large."""
        limit = self._settings.max_file_bytes
        if signature.size > limit:
            return None
        folder, name = self._folder.home_of(path)
        file = self._cache.ingest(f"{folder}/{name}", limit, str(folder))
        if file is None:
            return None
        # The mode of the scan counts: a change after it brings another scan.
        executable = bool(signature.mode & stat.S_IXUSR)
        if file.executable != executable:
            file = self._cache.add(self._cache.read(file), executable=executable)
        # One that was written just now may be written once more without another time.
        settled = time.time_ns() - signature.modified_ns > _SETTLED_NS
        return (signature if settled else _UNSETTLED, file)

    def _bundle(self, base: str, found: _Base) -> Bundle | None:
        before = self._bundles.get(base)
        if found.error is not None:
            return before
        kind = self._folder.kinds.get(base, "")
        hash_ = bundle_hash(base, found.files, kind)
        if before is not None and before.hash == hash_:
            return before
        root = str(self._folder.path_of(base))
        # The modules of another kind are imported elsewhere.
        isolated = () if kind else isolated_folders(found.files, self._imported(found.files))
        return Bundle(hash_, Manifest(root, base, found.files, isolated, kind))

    def _imported(self, files: dict[str, BundleFile]) -> frozenset[str]:
        """Return the names that some file imports as top-level modules."""
        found: set[str] = set()
        for path, file in files.items():
            if not path.endswith(".py"):
                continue
            names = self._imports.get(file.hash)
            if names is None:
                names = _imported_names(self._cache.read(file))
                self._imports.put(file.hash, names)
            found |= names
        return frozenset(found)

    def _file_too_large(self, path: str, size: int) -> str:
        limit = self._settings.max_file_bytes
        return (
            f"{self._folder.path_of(path)}: the file has {max(size, limit + 1):,} bytes and "
            f"{limit:,} fit into a bundle; {_REMEDY}, or raise [loader] max_file_bytes"
        )

    def _bundle_too_large(self, base: _Base) -> str:
        limit = self._settings.max_bundle_bytes
        largest = max(base.files, key=lambda path: base.files[path].size)
        return (
            f"{self._folder.root}: the files of the bundle have more than {limit:,} bytes, the "
            f"largest is {largest}; {_REMEDY}, or raise [loader] max_bundle_bytes"
        )

    def _too_many_files(self) -> str:
        limit = self._settings.max_bundle_files
        return (
            f"{self._folder.root}: there are more than {limit:,} files; name folders that are "
            f"not needed in {IGNORE_FILE}, or raise [loader] max_bundle_files"
        )


class EarlyReading:
    """Reads a DAGs folder in a thread, before there is a loader; its bundles are kept open.

    Args:
        root: The DAGs folder, or a single DAG file; without bundles of another kind.
        cache: The loader's.
        settings: Likewise.

    Attributes:
        cache: Likewise.

    Raises:
        ConfigError: `root` does not exist.
    """

    def __init__(self, root: Path, cache: BundleCache, settings: LoaderSettings) -> None:
        self.cache = cache
        self._reader = SnapshotReader(Folder(root), cache, settings)
        # A daemon whose servers do not start ends without waiting for it.
        self._thread = Thread(target=self._read, name="early-reading", daemon=True)
        self._thread.start()

    def result(self) -> SnapshotReader:
        """Wait for its end, and return the reader: what has changed since is read again."""
        self._thread.join()
        return self._reader

    def _read(self) -> None:
        try:
            with self.cache.filling():
                for bundle in self._reader.read().bundles.values():
                    self.cache.open(bundle.hash, bundle.manifest)
        except OSError as error:
            # The loader meets the same if it lasts, and shows it as an import error.
            log.info("loader.early_reading_failed", error=str(error))


def scan_folder(folder: Folder, settings: LoaderSettings) -> FolderScan:
    """Return the files of a folder that may be a part of a bundle.

    Raises:
        OSError: The folder cannot be read.
    """
    scan = folder.scan(settings.max_bundle_files)
    if folder.is_single_file and _is_too_much(scan, settings):
        _leave_out_others(folder, scan)
    return scan


def _is_too_much(scan: FolderScan, settings: LoaderSettings) -> bool:
    sizes = [signature.size for signature in scan.files.values()]
    return scan.cut or (
        max(sizes, default=0) > settings.max_file_bytes or sum(sizes) > settings.max_bundle_bytes
    )


def _leave_out_others(folder: Folder, scan: FolderScan) -> None:
    """Leave out all but the one DAG file: a single file may lie in a folder of anything."""
    (only,) = folder.dag_files(scan) or [""]
    for path in [path for path in scan.files if path != only]:
        del scan.files[path]
        scan.skipped[path] = "its folder is larger than a bundle may be ([loader] max_bundle_…)"
    scan.cut = False


def _imported_names(text: bytes) -> frozenset[str]:
    """Return the names that a Python file imports as top-level modules, wherever it does."""
    found: set[bytes] = set()
    for package, listed, literal in _IMPORTS.findall(text):
        found.update(filter(None, (package, literal)))
        found.update(_WORD.findall(listed))
    return frozenset(name.decode() for name in found)
