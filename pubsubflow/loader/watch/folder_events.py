"""Events of folders on Linux, by inotify(7), for which Python has no calls of its own."""

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from struct import Struct
from types import TracebackType
from typing import Self

import anyio

_MODIFY, _ATTRIB, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF = 0x400, 0x800
_OVERFLOW, _IGNORED = 0x4000, 0x8000
_ONLYDIR, _EXCL_UNLINK = 0x1000000, 0x4000000
_WATCHED = (_MODIFY | _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE) | (
    _DELETE_SELF | _MOVE_SELF | _ONLYDIR | _EXCL_UNLINK
)
_GONE = _DELETE_SELF | _MOVE_SELF
_CAME = _MOVED_TO | _CREATE
_HEADER = Struct("iIII")
_READ_BYTES = 65_536
_NONE_LEFT = (errno.ENOSPC, errno.ENOMEM)
_VIRTUAL_ENVIRONMENT = "pyvenv.cfg"


class FolderEvents:
    """Events of everything below some folders; a context manager.

    Args:
        is_relevant: Returns whether a path counts; folders that do not are not looked into.

    Attributes:
        ended: Whether one of the folders is gone, or events were lost: all is to be watched anew.

    Raises:
        OSError: The system has no more of them.
    """

    def __init__(self, is_relevant: Callable[[str], bool]) -> None:
        self._is_relevant = is_relevant
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._paths: dict[int, str] = {}
        self._roots: set[int] = set()
        self.ended = False
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        self._descriptor = self._checked(self._libc.inotify_init1(flags))

    def add(self, path: str) -> None:
        """Watch a folder and those below it; one that is gone already has ended.

        Raises:
            OSError: The system has no watches left, or refuses this one.
        """
        try:
            self._roots.add(self._watch(path))
        except (FileNotFoundError, NotADirectoryError):
            self.ended = True
        else:
            self._add_below(path)

    async def wait(self) -> bool:
        """Wait for events; return whether one of them counts.

        Raises:
            OSError: The system has no watches left for a new folder.
        """
        await anyio.wait_readable(self._descriptor)
        counts = False
        for path, mask in self._read():
            if mask & _CAME and self._is_folder(path):
                # Its files may be older than the watch: what this event brings about finds them.
                self._add_below(path)
            counts = counts or self._is_relevant(path)
        return counts or self.ended

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        anyio.notify_closing(self._descriptor)
        os.close(self._descriptor)

    def _read(self) -> Iterator[tuple[str, int]]:
        """Yield path and mask of the events that have come."""
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        position = 0
        while position < len(data):
            watch, mask, _, size = _HEADER.unpack_from(data, position)
            position += _HEADER.size
            name = os.fsdecode(data[position : position + size].rstrip(b"\0"))
            position += size
            if mask & _OVERFLOW or (mask & _GONE and watch in self._roots):
                self.ended = True
            folder = self._paths.pop(watch, None) if mask & _IGNORED else self._paths.get(watch)
            if folder is not None:
                yield (f"{folder}/{name}" if name else folder), mask

    def _add_below(self, path: str) -> None:
        """Watch a folder that came with those below it, also where links lead to them."""
        folders, seen = [path], set[int]()
        while folders:
            folder = folders.pop()
            try:
                watch = self._watch(folder)
                # The system knows folders by inode: links that lead back end here, and one that
                # was renamed has its new path.
                if watch not in seen:
                    seen.add(watch)
                    self._paths[watch] = folder
                    folders += self._folders_in(folder)
            except OSError as error:
                # Else it is gone again, or scans leave it out and say why.
                if error.errno in _NONE_LEFT:
                    raise

    def _is_folder(self, path: str) -> bool:
        return os.path.isdir(path) and self._is_relevant(path)  # noqa: PTH112 - of any new file

    def _folders_in(self, path: str) -> list[str]:
        with os.scandir(path) as entries:
            listed = list(entries)
        if any(each.name == _VIRTUAL_ENVIRONMENT for each in listed):
            return []
        return [
            each.path
            for each in listed
            if (each.is_dir(follow_symlinks=False) or each.is_symlink())
            and self._is_folder(each.path)
        ]

    def _watch(self, path: str) -> int:
        name = os.fsencode(path)
        return self._checked(self._libc.inotify_add_watch(self._descriptor, name, _WATCHED), path)

    def _checked(self, result: int, path: str | None = None) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
        return result
