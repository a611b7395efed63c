"""The bundle cache: files by content on disk, and for each bundle a folder of hard links to them.

```
files/ab/abcdef…    a file; with an `x` at its end when it is executable
bundles/<hash>/     the folder of a bundle
bundles/spare-<hash>/   another folder of it, from which that of the next bundle is made
locks/<name>        locked, shared, by every process that uses the folder of that name
filling             locked, shared, by every process that adds files for a bundle
new/                what is being made; a rename puts it in its place
```
"""

import fcntl
import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import structlog

from pubsubflow.model.source.bundles import BundleFile, Manifest
from pubsubflow.runner.caches.content_files import ContentFiles
from pubsubflow.runner.caches.link_folders import (
    change,
    is_whole,
    names_that_differ,
    remove_tree,
)
from pubsubflow.runner.task_account import TaskAccount

log = structlog.get_logger(__name__)

_STALE_SECONDS = 3600.0
_CHECK_SECONDS = 10.0
_UNLISTED_SHARE = 16
_FOLDERS = ("files", "bundles", "locks", "new")
_SPARE = "spare-"
_LEAST_FILES = 1_000
_MOST_CHANGED_SHARE = 8


class _Spare(NamedTuple):
    """A spare folder of a bundle, with the lock that holds it and what it holds."""

    bundle: str
    files: Mapping[str, BundleFile]
    path: Path
    lock: Path
    descriptor: int


class BundleCache:
    """A folder that keeps bundles; several processes may use it at once.

    Args:
        folder: Made when it is missing, for this account alone.
        max_bytes: Beyond it, the bundles that were used longest ago and that no process uses go.
        account: The account of user code, which may read the bundles; None for the daemon's own.
    """

    def __init__(
        self, folder: Path, *, max_bytes: int = 2 << 30, account: TaskAccount | None = None
    ) -> None:
        self._folder = folder
        self._account = account
        self._max_bytes = max_bytes
        self._held: dict[str, int] = {}
        self._checked: dict[str, float] = {}
        self._spares: dict[str, _Spare] = {}
        self._listed: tuple[float, int] | None = None
        self._mutex = threading.Lock()
        self._make_folders()
        self._files = ContentFiles(f"{folder}/files", f"{folder}/new", self._make_folders)

    def _make_folders(self) -> None:
        """Make what is missing: what cleans up caches may have removed it since."""
        folder, account = self._folder, self._account
        if all((folder / name).is_dir() for name in _FOLDERS):
            return
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in _FOLDERS:
            (folder / name).mkdir(exist_ok=True)
        if account is not None:
            for each in (folder, folder / "bundles"):
                os.chown(each, -1, account.gid)
                each.chmod(0o710)

    @contextmanager
    def filling(self) -> Iterator[None]:
        """Keep what is added inside the block until its bundle is opened, inside it as well."""
        self._make_folders()
        descriptor = os.open(self._folder / "filling", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)

    def missing(self, manifest: Manifest) -> dict[str, int]:
        """Return the files of a bundle that are not here: hash → size."""
        return {
            file.hash: file.size
            for file in manifest.files.values()
            if not (self._files.has(file) or self._files.copy_other_mode(file))
        }

    def add(self, data: bytes, *, executable: bool = False) -> BundleFile:
        """Keep a content."""
        return self._files.add(data, executable=executable)

    def ingest(self, source: str, max_bytes: int, root: str | None = None) -> BundleFile | None:
        """Keep a copy of a file; one of more bytes is refused, with None.

        Args:
            source: The file.
            max_bytes: How many bytes it may have.
            root: The folder that it belongs to: where user code has an account of its own, a link
                out of it leads to nothing that this account may not read.

        Raises:
            OSError: It cannot be read, or the disk is full.
        """
        return self._files.ingest(source, max_bytes, root, self._account)

    def read(self, file: BundleFile) -> bytes:
        """Return a content that is here."""
        return self._files.read(file)

    def open(self, bundle: str, manifest: Manifest) -> Path:
        """Return the folder of a bundle, made where needed, and keep it until it is released.

        All its files must be here; see `missing`.

        Raises:
            FileNotFoundError: A file is missing, or was written to.
            OSError: The disk is full.
        """
        with self._mutex:
            lock = self._folder / "locks" / bundle
            if bundle in self._held and not lock.exists():  # the cache was removed meanwhile
                self._let_go(bundle)
            if bundle not in self._held:
                self._held[bundle] = self._lock(bundle)
            path = self._folder / "bundles" / bundle
            # Not each time: every process that is forked for the bundle comes here.
            checked = self._checked.get(bundle, 0.0)
            if not checked or time.monotonic() - checked > _CHECK_SECONDS or not path.is_dir():
                if not is_whole(path, manifest.files):
                    self._make(path, manifest)
                self._checked[bundle] = time.monotonic()
            os.utime(lock)
            return path

    def prepare(self, bundle: str, manifest: Manifest) -> None:
        """Make a spare folder of an open bundle of many files, for the next one of its base.

        That takes as long as `open` does otherwise, which then changes what differs.

        Raises:
            FileNotFoundError: A file is missing, or was written to.
            OSError: The disk is full.
        """
        if len(manifest.files) < _LEAST_FILES:
            return
        with self._mutex:
            before = self._spares.get(manifest.base)
            if before is not None:
                if before.bundle == bundle and before.path.is_dir():
                    return
                os.close(self._spares.pop(manifest.base).descriptor)
        descriptor = self._lock(f"{_SPARE}{bundle}")
        path, lock = (self._folder / name / f"{_SPARE}{bundle}" for name in ("bundles", "locks"))
        new = Path(self._files.new_path())
        try:
            # A daemon that ran before may have left it.
            if not is_whole(path, manifest.files):
                new.mkdir()
                change(new, {}, manifest.files, self._files.path)
                self._replace(new, path, manifest)
        except OSError:
            os.close(descriptor)
            raise
        finally:
            remove_tree(new)
        with self._mutex:
            self._spares[manifest.base] = _Spare(bundle, manifest.files, path, lock, descriptor)

    def release(self, keep: Collection[str]) -> None:
        """Release all bundles but these."""
        with self._mutex:
            for base in [base for base, each in self._spares.items() if each.bundle not in keep]:
                os.close(self._spares.pop(base).descriptor)
            for bundle in [each for each in self._held if each not in keep]:
                self._let_go(bundle)

    def trim(self) -> None:
        """Remove what was used longest ago and is in no use, until the rest fits.

        The files are not listed as long as they must fit: what other processes have added counts
        when they are listed, at the latest after this one has added a sixteenth of the limit.
        """
        if not self._may_be_full():
            return
        descriptor = os.open(self._folder / "filling", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Not while a process adds files that no bundle holds yet: they would be removed.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        else:
            self._files.placed_bytes = 0
            self._listed = time.monotonic(), self._trim()
        finally:
            os.close(descriptor)

    def _may_be_full(self) -> bool:
        placed = self._files.placed_bytes
        if self._listed is None:
            return True
        at, size = self._listed
        return placed > 0 and (
            size + placed > self._max_bytes
            or placed > self._max_bytes // _UNLISTED_SHARE
            or time.monotonic() - at > _STALE_SECONDS
        )

    def close(self) -> None:
        """Release all bundles."""
        self.release(())

    def _let_go(self, bundle: str) -> None:
        os.close(self._held.pop(bundle))
        self._checked.pop(bundle, None)

    def _make(self, path: Path, manifest: Manifest) -> None:
        self._make_folders()
        new = Path(self._files.new_path())
        try:
            if not self._use_spare(new, manifest):
                new.mkdir()
                change(new, {}, manifest.files, self._files.path)
            self._replace(new, path, manifest)
        finally:
            remove_tree(new)

    def _use_spare(self, new: Path, manifest: Manifest) -> bool:
        """Make a new folder from a spare one, if there is one that is almost the same."""
        spare = self._spares.pop(manifest.base, None)
        if spare is None:
            return False
        try:
            changed = len(names_that_differ(spare.files, manifest.files))
            if changed * _MOST_CHANGED_SHARE > len(manifest.files):
                return False
            # From here on it is no spare: one that is found anywhere is as it was made.
            spare.path.chmod(0o755)
            spare.path.rename(new)
            spare.lock.unlink(missing_ok=True)
            change(new, spare.files, manifest.files, self._files.path)
            usable = is_whole(new, manifest.files)
        except OSError as error:
            # Another process has taken it, or somebody has written to it or removed it.
            log.info("bundles.spare_refused", error=str(error))
            usable = False
        finally:
            os.close(spare.descriptor)
        if not usable:
            remove_tree(new)
        return usable

    def _replace(self, new: Path, path: Path, manifest: Manifest) -> None:
        """Put a folder in its place; one that another process has made meanwhile is as good."""
        # Renaming a folder writes its entry `..`: its own mode must allow that.
        new.chmod(0o755)
        if path.exists() and not is_whole(path, manifest.files):
            broken = Path(self._files.new_path())
            path.chmod(0o755)
            path.rename(broken)
            remove_tree(broken)
        try:
            new.rename(path)
        except OSError:
            if not is_whole(path, manifest.files):
                raise
        path.chmod(0o555)

    def _lock(self, bundle: str) -> int:
        """Lock a bundle for use, and return the descriptor that holds the lock."""
        self._make_folders()
        path = self._folder / "locks" / bundle
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            # Whoever trimmed the bundle away has removed the file that was locked here.
            if _same_file(descriptor, path):
                return descriptor
            os.close(descriptor)

    def _trim(self) -> int:
        """Remove what does not fit; return the bytes that are left."""
        _remove_stale(self._folder / "new")
        for lock in (self._folder / "locks").glob(f"{_SPARE}*"):
            # What a process that has ended has left; that of a bundle in force is used again.
            if lock.name.removeprefix(_SPARE) not in self._held:
                self._drop(lock)
        files = self._files.list_all()
        size = sum(file.size for file in files)
        if size <= self._max_bytes:
            return size
        locks = sorted((self._folder / "locks").iterdir(), key=lambda path: path.stat().st_mtime)
        for lock in locks:
            self._drop(lock)
            files = self._files.list_all()
            for file in files:
                if file.links == 1:
                    Path(file.path).unlink()
            size = sum(file.size for file in files if file.links > 1)
            if size <= self._max_bytes:
                break
        log.info("bundles.trimmed", bytes=size)
        return size

    def _drop(self, lock: Path) -> None:
        """Remove a bundle, unless a process uses it."""
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        else:
            remove_tree(self._folder / "bundles" / lock.name)
            lock.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _remove_stale(folder: Path) -> None:
    """Remove what a process that was killed has left half made."""
    for path in tuple(folder.iterdir()):
        # Where the time is that of a finished file, that of its inode's last change counts.
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_ctime > _STALE_SECONDS:
                remove_tree(path)
