"""The bundle cache: files by content on disk, and for each bundle a folder of hard links to them.

```
files/ab/abcdef…    a file; with an `x` at its end when it is executable
bundles/<hash>/     the folder of a bundle
locks/<hash>        locked, shared, by every process that uses the folder
filling             locked, shared, by every process that adds files for a bundle
new/                what is being made; a rename puts it in its place
```
"""

import errno
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from pubsubflow.model.source.bundles import BundleFile, Manifest
from pubsubflow.runner.caches.content_files import ContentFiles, is_intact
from pubsubflow.runner.task_account import TaskAccount

log = structlog.get_logger(__name__)

_STALE_SECONDS = 3600.0
_CHECK_SECONDS = 10.0
_UNLISTED_SHARE = 16
_FOLDERS = ("files", "bundles", "locks", "new")
_NO_LINK = (errno.EMLINK, errno.EXDEV, errno.EPERM, errno.ENOTSUP)


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
                if not _is_whole(path, manifest):
                    self._make(path, manifest)
                self._checked[bundle] = time.monotonic()
            os.utime(lock)
            return path

    def release(self, keep: Collection[str]) -> None:
        """Release all bundles but these."""
        with self._mutex:
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
        with self._mutex:
            for bundle in tuple(self._held):
                self._let_go(bundle)

    def _let_go(self, bundle: str) -> None:
        os.close(self._held.pop(bundle))
        self._checked.pop(bundle, None)

    def _make(self, path: Path, manifest: Manifest) -> None:
        self._make_folders()
        new = Path(self._files.new_path())
        new.mkdir()
        try:
            folders = {str(new)}
            for name, file in manifest.files.items():
                target = f"{new}/{name}"
                parent = target.rpartition("/")[0]
                if parent not in folders:
                    Path(parent).mkdir(parents=True, exist_ok=True)
                    folders.add(parent)
                source = self._files.path(file)
                if not is_intact(source, file):
                    raise FileNotFoundError(errno.ENOENT, "it is missing or was changed", source)
                _link(source, target)
            for folder in folders:
                Path(folder).chmod(0o555)
            self._replace(new, path, manifest)
        finally:
            _remove_tree(new)

    def _replace(self, new: Path, path: Path, manifest: Manifest) -> None:
        """Put a folder in its place; one that another process has made meanwhile is as good."""
        # Renaming a folder writes its entry `..`: its own mode must allow that.
        new.chmod(0o755)
        if path.exists() and not _is_whole(path, manifest):
            broken = Path(self._files.new_path())
            path.chmod(0o755)
            path.rename(broken)
            _remove_tree(broken)
        try:
            new.rename(path)
        except OSError:
            if not _is_whole(path, manifest):
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
            _remove_tree(self._folder / "bundles" / lock.name)
            lock.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _is_whole(path: Path, manifest: Manifest) -> bool:
    """Return whether a folder holds all files of a bundle as they were."""
    if not path.is_dir():
        return False
    folder = str(path)
    return all(is_intact(f"{folder}/{name}", file) for name, file in manifest.files.items())


def _link(source: str, target: str) -> None:
    """Make a hard link, or a copy where the file system has no more of them."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        shutil.copy2(source, target)


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
                _remove_tree(path)


def _remove_tree(path: Path) -> None:
    """Remove a folder with its files, or a file; read-only folders, too."""
    if path.is_dir() and not path.is_symlink():
        for folder, _, _ in os.walk(path):
            Path(folder).chmod(0o755)
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
