"""Records of the daemons of a home: who starts on it next knows which of them were killed."""

import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import structlog

log = structlog.get_logger(__name__)

FOLDER = "daemons"
_PRIVATE_FOLDER = 0o700
_PRIVATE_FILE = 0o600


class DaemonRecord:
    """The names of this daemon in a file of a home, which is locked until the daemon ends.

    The kernel releases the lock of a process that is killed: a record that can be locked is of one
    that is gone.

    Args:
        path: The file.
        descriptor: The file, open and locked.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    @contextmanager
    def open(cls, home: Path) -> Iterator[Self | None]:
        """Keep a record for the length of a block; None if the home cannot be written."""
        folder = home / FOLDER
        path = folder / f"{os.getpid()}-{secrets.token_hex(4)}"
        unlocked = folder / f".{path.name}"
        try:
            # Each by itself: parents get the mode that others may read.
            home.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
            folder.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
            descriptor = os.open(unlocked, os.O_CREAT | os.O_EXCL | os.O_RDWR, _PRIVATE_FILE)
        except OSError as error:
            log.info("daemon.not_recorded", folder=str(folder), reason=str(error))
            yield None
            return
        try:
            # Others look at it once it is locked.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            unlocked.rename(path)
            record = cls(path, descriptor)
            record.add(socket.gethostname())
            yield record
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def add(self, name: str) -> None:
        """Add a name that this daemon has from now on."""
        os.write(self._descriptor, f"{name}\n".encode())

    @contextmanager
    def killed(self) -> Iterator[list[str]]:
        """Yield the names of daemons of this home and machine that were killed.

        Their records are removed when the block ends without an error.
        """
        names: list[str] = []
        done: list[Path] = []
        with ExitStack() as stack:
            for path in sorted(self._path.parent.glob("[!.]*")):
                found = () if path == self._path else _names_of_killed(path, stack)
                names += found
                done += [path] if found else []
            yield names
            for path in done:
                path.unlink(missing_ok=True)


def _names_of_killed(path: Path, stack: ExitStack) -> list[str]:
    """Return the names in a record whose daemon is gone; none of one that lives or lived elsewhere.

    The record is locked until the stack is left.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # its daemon ended just now, or another user's
        return []
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return []
    size = os.fstat(descriptor).st_size
    host, *names = os.read(descriptor, size).decode().splitlines() or [""]
    if not path.exists():  # another daemon has just taken over from it
        return []
    # A folder that machines share may have locks that only hold on each of them.
    return names if host == socket.gethostname() else []
