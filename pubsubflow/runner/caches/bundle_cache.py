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
import hashlib
import os
import shutil
import stat
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO

import structlog

from pubsubflow.model.source.bundles import BundleFile, Manifest
from pubsubflow.runner.task_account import TaskAccount

log = structlog.get_logger(__name__)

# Every file gets this time, so that one that was written to afterwards is recognised.
_TIME_NS = 946_684_800 * 10**9
_READ_BYTES = 1 << 20
_STALE_SECONDS = 3600.0
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
        self._mutex = threading.Lock()
        self._grown = True
        self._numbers = count()
        self._make_folders()

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
            if not (_is_intact(self._file(file), file) or self._copy_other_mode(file))
        }

    def add(self, data: bytes, *, executable: bool = False) -> BundleFile:
        """Keep a content."""
        file = BundleFile(hashlib.sha256(data).hexdigest(), len(data), executable)
        if not _is_intact(self._file(file), file):
            path = self._new()
            try:
                path.write_bytes(data)
                self._place(path, file)
            except OSError:
                path.unlink(missing_ok=True)
                raise
        return file

    def ingest(self, source: Path, max_bytes: int, root: Path | None = None) -> BundleFile | None:
        """Keep a copy of a file; one of more bytes is refused, with None.

        Args:
            source: The file.
            max_bytes: How many bytes it may have.
            root: The folder that it belongs to: where user code has an account of its own, a link
                out of it leads to nothing that this account may not read.

        Raises:
            OSError: It cannot be read, or the disk is full.
        """
        # A pipe that took the file's place since it was looked at would block the open.
        descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as reader:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            if root is not None and self._account is not None:
                _check_link(descriptor, root, self._account)
            executable = bool(facts.st_mode & stat.S_IXUSR)
            if facts.st_size < _READ_BYTES:
                data = reader.read(_READ_BYTES)
                if len(data) < _READ_BYTES:  # it has not grown meanwhile
                    return None if len(data) > max_bytes else self.add(data, executable=executable)
                reader.seek(0)
            return self._ingest_large(reader, max_bytes, executable=executable)

    def _ingest_large(
        self, reader: BinaryIO, max_bytes: int, *, executable: bool
    ) -> BundleFile | None:
        path = self._new()
        try:
            with path.open("wb") as writer:
                digest, size = _copy(reader, writer, max_bytes)
            if size > max_bytes:
                return None
            file = BundleFile(digest, size, executable)
            self._place(path, file)
        finally:
            path.unlink(missing_ok=True)
        return file

    def read(self, file: BundleFile) -> bytes:
        """Return a content that is here."""
        return self._file(file).read_bytes()

    def open(self, bundle: str, manifest: Manifest) -> Path:
        """Return the folder of a bundle, made where needed, and keep it until it is released.

        All its files must be here; see `missing`.

        Raises:
            OSError: The disk is full, or a file is missing.
        """
        with self._mutex:
            lock = self._folder / "locks" / bundle
            if bundle in self._held and not lock.exists():  # the cache was removed meanwhile
                os.close(self._held.pop(bundle))
            if bundle not in self._held:
                self._held[bundle] = self._lock(bundle)
            path = self._folder / "bundles" / bundle
            if not _is_whole(path, manifest):
                self._make(path, manifest)
            os.utime(lock)
            return path

    def release(self, keep: Collection[str]) -> None:
        """Release all bundles but these."""
        with self._mutex:
            for bundle in [each for each in self._held if each not in keep]:
                os.close(self._held.pop(bundle))

    def trim(self) -> None:
        """Remove what was used longest ago and is in no use, until the rest fits."""
        if not self._grown:
            return
        descriptor = os.open(self._folder / "filling", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Not while a process adds files that no bundle holds yet: they would be removed.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        else:
            self._grown = False
            self._trim()
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Release all bundles."""
        with self._mutex:
            while self._held:
                os.close(self._held.popitem()[1])

    def _make(self, path: Path, manifest: Manifest) -> None:
        new = self._new()
        new.mkdir()
        try:
            folders = {new}
            for name, file in manifest.files.items():
                target = new / name
                if target.parent not in folders:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    folders.add(target.parent)
                _link(self._file(file), target)
            for folder in folders:
                folder.chmod(0o555)
            self._replace(new, path, manifest)
        finally:
            _remove_tree(new)

    def _replace(self, new: Path, path: Path, manifest: Manifest) -> None:
        """Put a folder in its place; one that another process has made meanwhile is as good."""
        # Renaming a folder writes its entry `..`: its own mode must allow that.
        new.chmod(0o755)
        if path.exists() and not _is_whole(path, manifest):
            broken = self._new()
            path.chmod(0o755)
            path.rename(broken)
            _remove_tree(broken)
        try:
            new.rename(path)
        except OSError:
            if not _is_whole(path, manifest):
                raise
        path.chmod(0o555)

    def _copy_other_mode(self, file: BundleFile) -> bool:
        """Make a file from the one of the same content and another mode, if that is here."""
        twin = BundleFile(file.hash, file.size, not file.executable)
        path = self._file(twin)
        if not _is_intact(path, twin):
            return False
        new = self._new()
        shutil.copyfile(path, new)
        self._place(new, file)
        return True

    def _place(self, path: Path, file: BundleFile) -> None:
        """Move a finished file to its place."""
        target = self._file(file)
        path.chmod(0o555 if file.executable else 0o444)
        os.utime(path, ns=(_TIME_NS, _TIME_NS))
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
        self._grown = True

    def _file(self, file: BundleFile) -> Path:
        name = f"{file.hash}x" if file.executable else file.hash
        return self._folder / "files" / file.hash[:2] / name

    def _new(self) -> Path:
        self._make_folders()
        number = f"{os.getpid()}-{threading.get_ident()}-{next(self._numbers)}"
        return self._folder / "new" / number

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

    def _trim(self) -> None:
        _remove_stale(self._folder / "new")
        files = [path for path in (self._folder / "files").rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        if size <= self._max_bytes:
            return
        locks = sorted((self._folder / "locks").iterdir(), key=lambda path: path.stat().st_mtime)
        for lock in locks:
            self._drop(lock)
            unlinked = [path for path in files if path.stat().st_nlink == 1]
            files = [path for path in files if path not in unlinked]
            for path in unlinked:
                size -= path.stat().st_size
                path.unlink()
            if size <= self._max_bytes:
                break
        log.info("bundles.trimmed", bytes=size)

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


def _check_link(descriptor: int, root: Path, account: TaskAccount) -> None:
    """Refuse an open file outside a folder that user code may not read: root may read all."""
    path = os.path.realpath(f"/proc/self/fd/{descriptor}")
    inside = path.startswith(f"{os.path.realpath(root)}{os.sep}")
    if not inside and not account.may_read(os.fstat(descriptor)):
        text = f"a link leads to {path}, which account {account.name} of tasks may not read"
        raise OSError(errno.EACCES, text)


def _copy(reader: BinaryIO, writer: BinaryIO, max_bytes: int) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while size <= max_bytes and (data := reader.read(_READ_BYTES)):
        size += len(data)
        digest.update(data)
        writer.write(data)
    return digest.hexdigest(), size


def _is_intact(path: Path, file: BundleFile) -> bool:
    """Return whether a file is there, and has not been written to."""
    try:
        facts = path.stat()
    except OSError:
        return False
    return (facts.st_size, facts.st_mtime_ns) == (file.size, _TIME_NS)


def _is_whole(path: Path, manifest: Manifest) -> bool:
    """Return whether a folder holds all files of a bundle as they were."""
    return path.is_dir() and all(
        _is_intact(path / name, file) for name, file in manifest.files.items()
    )


def _link(source: Path, target: Path) -> None:
    """Make a hard link, or a copy where the file system has no more of them."""
    try:
        target.hardlink_to(source)
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
