"""Files by content on disk: each is kept once, read-only, under the hash of what it holds.

Paths are texts here: tens of thousands of them are made for the files of one folder.
"""

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from itertools import count
from pathlib import Path
from threading import get_ident
from typing import NamedTuple

from pubsubflow.model.source.bundles import BundleFile
from pubsubflow.runner.task_account import TaskAccount

# Every file gets this time, so that one that was written to afterwards is recognised.
_TIME_NS = 946_684_800 * 10**9
_READ_BYTES = 1 << 20


class StoredContent(NamedTuple):
    """A file as it lies on disk: its path, its bytes, and how many names it has."""

    path: str
    size: int
    links: int


class ContentFiles:
    """A folder of files by content; several processes may use it at once.

    Args:
        folder: It.
        new: The folder in which a file is before it is whole; of the same file system.
        make_folders: Makes both, where they are missing.

    Attributes:
        placed_bytes: Bytes of the files that this process has added; may be set.
    """

    def __init__(self, folder: str, new: str, make_folders: Callable[[], None]) -> None:
        self._folder = folder
        self._new_folder = new
        self._make_folders = make_folders
        self._numbers = count()
        self.placed_bytes = 0

    def path(self, file: BundleFile) -> str:
        """Return where a file lies, if it is here."""
        end = "x" if file.executable else ""
        return f"{self._folder}/{file.hash[:2]}/{file.hash}{end}"

    def has(self, file: BundleFile) -> bool:
        """Return whether a file is here, as it was."""
        return is_intact(self.path(file), file)

    def list_all(self) -> list[StoredContent]:
        """Return all files."""
        found = []
        with os.scandir(self._folder) as folders:
            places = [each.path for each in folders]
        for place in places:
            with suppress(FileNotFoundError), os.scandir(place) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        facts = entry.stat(follow_symlinks=False)
                        found.append(StoredContent(entry.path, facts.st_size, facts.st_nlink))
        return found

    def new_path(self) -> str:
        """Return a path that no other thread or process uses, for what is being made."""
        return f"{self._new_folder}/{os.getpid()}-{get_ident()}-{next(self._numbers)}"

    def read(self, file: BundleFile) -> bytes:
        """Return the content of a file that is here.

        Raises:
            FileNotFoundError: It is not.
        """
        with FileIO(self.path(file)) as reader:
            return reader.readall()

    def add(self, data: bytes, *, executable: bool = False) -> BundleFile:
        """Keep a content.

        Raises:
            OSError: The disk is full.
        """
        file = BundleFile(hashlib.sha256(data).hexdigest(), len(data), executable)
        if self.has(file):
            return file
        path = self.new_path()
        try:
            with self._create(path) as writer:
                _write(writer, data)
                self._place(path, file, writer)
        except OSError:
            Path(path).unlink(missing_ok=True)
            raise
        return file

    def ingest(
        self, source: str, max_bytes: int, root: str | None, account: TaskAccount | None
    ) -> BundleFile | None:
        """Keep a copy of a file; one of more bytes is refused, with None.

        Args:
            source: The file.
            max_bytes: How many bytes it may have.
            root: The folder that it belongs to.
            account: Of user code, if it has one: then a link out of the folder leads to nothing
                that it may not read.

        Raises:
            OSError: It cannot be read, or the disk is full.
        """
        # A pipe that took the file's place since it was looked at would block the open.
        descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with FileIO(descriptor) as reader:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            if root is not None and account is not None:
                _check_link(descriptor, root, account)
            executable = bool(facts.st_mode & stat.S_IXUSR)
            if facts.st_size < _READ_BYTES:
                data = _read(reader, _READ_BYTES)
                if len(data) < _READ_BYTES:  # it has not grown meanwhile
                    return None if len(data) > max_bytes else self.add(data, executable=executable)
                reader.seek(0)
            return self._ingest_large(reader, max_bytes, executable=executable)

    def copy_other_mode(self, file: BundleFile) -> bool:
        """Make a file from the one of the same content and another mode, if that is here."""
        twin = BundleFile(file.hash, file.size, not file.executable)
        if not self.has(twin):
            return False
        path = self.new_path()
        with Path(self.path(twin)).open("rb") as reader, self._create(path) as writer:
            shutil.copyfileobj(reader, writer)
            self._place(path, file, writer)
        return True

    def _ingest_large(
        self, reader: FileIO, max_bytes: int, *, executable: bool
    ) -> BundleFile | None:
        path = self.new_path()
        try:
            with self._create(path) as writer:
                digest, size = _copy(reader, writer, max_bytes)
                if size > max_bytes:
                    return None
                file = BundleFile(digest, size, executable)
                self._place(path, file, writer)
        finally:
            Path(path).unlink(missing_ok=True)
        return file

    def _create(self, path: str) -> FileIO:
        try:
            return FileIO(path, "x")
        except FileNotFoundError:
            self._make_folders()
            return FileIO(path, "x")

    def _place(self, path: str, file: BundleFile, writer: FileIO) -> None:
        """Move a file that is written to its place."""
        descriptor = writer.fileno()
        os.fchmod(descriptor, 0o555 if file.executable else 0o444)
        os.utime(descriptor, ns=(_TIME_NS, _TIME_NS))
        target = self.path(file)
        try:
            os.rename(path, target)  # noqa: PTH104 - texts
        except FileNotFoundError:
            self._make_folders()
            Path(target).parent.mkdir(exist_ok=True)
            os.rename(path, target)  # noqa: PTH104 - texts
        self.placed_bytes += file.size


def is_intact(path: str, file: BundleFile) -> bool:
    """Return whether a file is there, and has not been written to."""
    try:
        facts = os.stat(path)  # noqa: PTH116 - thousands of them
    except OSError:
        return False
    return (facts.st_size, facts.st_mtime_ns) == (file.size, _TIME_NS)


def _read(reader: FileIO, size: int) -> bytes:
    """Return that many bytes of a file, fewer at its end: one read may return less."""
    data = reader.read(size) or b""
    while len(data) < size and (more := reader.read(size - len(data))):
        data += more
    return data


def _write(writer: FileIO, data: bytes) -> None:
    """Write all of it: one write may take less, as on a disk that is almost full."""
    rest = memoryview(data)
    while rest:
        rest = rest[writer.write(rest) :]


def _copy(reader: FileIO, writer: FileIO, max_bytes: int) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while size <= max_bytes and (data := reader.read(_READ_BYTES)):
        size += len(data)
        digest.update(data)
        _write(writer, data)
    return digest.hexdigest(), size


def _check_link(descriptor: int, root: str, account: TaskAccount) -> None:
    """Refuse an open file outside a folder that user code may not read: root may read all."""
    path = os.path.realpath(f"/proc/self/fd/{descriptor}")
    inside = path.startswith(f"{os.path.realpath(root)}{os.sep}")
    if not inside and not account.may_read(os.fstat(descriptor)):
        text = f"a link leads to {path}, which account {account.name} of tasks may not read"
        raise OSError(errno.EACCES, text)
