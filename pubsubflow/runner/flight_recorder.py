"""A flight recorder: what a process did last, for the time when it cannot report any more.

A file that both processes know. Its first page is shared memory: in the trigger host a number a
thread, the id of the trigger that runs now, 0 for none; in an async runner the cells below. After
it come the stacks that the interpreter writes when it crashes, or when the daemon sends SIGUSR1
because C code holds the interpreter. The page outlives the process that wrote it.
"""

import ctypes
import errno
import faulthandler
import mmap
import os
import signal
import struct
import tempfile
import threading
from collections.abc import Coroutine, Generator
from pathlib import Path
from typing import Any, ClassVar, Protocol

from msgspec import Struct

from pubsubflow.exit_codes import TaskExited
from pubsubflow.runner.task_account import TaskAccount

PAGE_BYTES = 4096
SLOTS = PAGE_BYTES // 8
_MAP_FAILED = ctypes.c_void_p(-1).value
_NUMBER = struct.Struct("=q")
_MAX_STACK_CHARACTERS = 20_000
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - mkstemp makes a name of its own in it
_BARRIER = threading.Lock()
_FORKED_TEXT = b"a child that a task forked came back to the event loop: it ends here\n"

RUNNING, BEAT, BEGUN, REVOKED_AFTER, REVOKED_UNTIL = range(5)
"""Cells of a runner, of a sync one the last three: the assignment whose code runs now, 0 for none;
when its loop last turned, in ns of the monotonic clock, 0 while it has no tasks; how many of the
assignments that were sent to it have begun. Those whose count is above REVOKED_AFTER, up to
REVOKED_UNTIL, must not begin any more: the worker writes these two."""


class SharedPage(Protocol):
    """Numbers that the worker and a runner share."""

    def __getitem__(self, index: int, /) -> int:
        """Return a number."""

    def __setitem__(self, index: int, value: int, /) -> None:
        """Change a number."""


class FlightRecorder:
    """The host's end.

    Args:
        path: The file, made by `prepare`.

    Attributes:
        running: Id of the trigger that each thread runs now, by the thread's index.
    """

    def __init__(self, path: str) -> None:
        # Stacks are appended behind the page, which itself is written through the mapping.
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        self.running = memoryview(mmap.mmap(self._fd, PAGE_BYTES)).cast("q")
        faulthandler.enable(self._fd)
        faulthandler.register(signal.SIGUSR1, self._fd)


def map_numbers(path: str) -> "ctypes.Array[ctypes.c_int64]":
    """Map the numbers of a file that was made for a runner, and remove its name.

    No descriptor of it stays open, as one of `mmap` does: a task can use none that is there.

    Raises:
        OSError: It cannot be mapped.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.unlink(path)  # noqa: PTH108 - no name is left behind by a killed process
        access = mmap.PROT_READ | mmap.PROT_WRITE
        address = libc.mmap(None, PAGE_BYTES, access, mmap.MAP_SHARED, fd, 0)
        if address == _MAP_FAILED:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
    finally:
        os.close(fd)
    return (ctypes.c_int64 * SLOTS).from_address(address)


def begins(page: SharedPage, number: int) -> bool:
    """Note that an assignment begins, and return whether it may: the worker may have revoked it.

    Args:
        page: The shared numbers.
        number: How many assignments have been sent with this one.
    """
    page[BEGUN] = number
    # A lock is a barrier: the worker sees the number before its own ones are read here. Without it
    # either side might see what was there before, and the assignment would begin twice.
    with _BARRIER:
        pass
    return not page[REVOKED_AFTER] < number <= page[REVOKED_UNTIL]


class _SharedNumbers:
    """Numbers of the first page, read and written through the file.

    A mapping would end the daemon when user code cuts the file.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __getitem__(self, index: int) -> int:
        data = os.pread(self._fd, _NUMBER.size, index * _NUMBER.size)
        value: int = _NUMBER.unpack(data)[0] if len(data) == _NUMBER.size else 0
        return value

    def __setitem__(self, index: int, value: int) -> None:
        os.pwrite(self._fd, _NUMBER.pack(value), index * _NUMBER.size)


class RunnerRecorder:
    """The worker's end of an async runner's recorder; it outlives the process.

    Args:
        account: The account of the runner; None for the daemon's own.

    Attributes:
        path: The file; the runner removes its name as soon as it has opened it.
        page: The shared numbers.
        closed: Whether it is given up.

    Raises:
        OSError: No space is left for it.
    """

    def __init__(self, account: TaskAccount | None = None) -> None:
        self.closed = False
        self._fd, self.path = _new_page()
        if account is not None:
            os.fchown(self._fd, account.uid, account.gid)
        self.page = _SharedNumbers(self._fd)

    @property
    def size(self) -> int:
        """How many bytes of stacks there are."""
        return os.fstat(self._fd).st_size - PAGE_BYTES

    def stack(self, start: int = 0) -> str:
        """Return the stacks that were written from a position on."""
        data = os.pread(self._fd, _MAX_STACK_CHARACTERS, PAGE_BYTES + start)
        return data.decode(errors="backslashreplace").strip()

    def close(self) -> None:
        """Give the file up."""
        self.closed = True
        os.close(self._fd)
        Path(self.path).unlink(missing_ok=True)


def _new_page() -> tuple[int, str]:
    """Make a file that holds an empty page: in memory where possible, else on the disk."""
    folders = [each for each in (_SHARED_MEMORY, tempfile.gettempdir()) if os.access(each, os.W_OK)]
    for folder in folders:
        fd, path = tempfile.mkstemp(prefix="pubsubflow-recorder-", dir=folder)
        try:
            # Its space is taken now: a write to a page without any, later, would be a SIGBUS.
            os.write(fd, bytes(PAGE_BYTES))
        except OSError:
            os.close(fd)
            Path(path).unlink()
            if folder is folders[-1]:
                raise
        else:
            return fd, path
    raise OSError(errno.EACCES, "no folder for temporary files can be written", folders)


class FlightRecord(Struct, frozen=True):
    """The contents of a flight recorder.

    Attributes:
        running: Ids of the triggers that ran.
        stack: What the interpreter wrote, if it did.
    """

    running: tuple[int, ...]
    stack: str


def prepare(path: Path, account: TaskAccount | None = None) -> None:
    """Make an empty flight recorder, for an account; in a folder that the account cannot write."""
    path.write_bytes(bytes(PAGE_BYTES))
    if account is not None:
        path.parent.chmod(0o711)
        os.chown(path, account.uid, account.gid)


def read(path: Path) -> FlightRecord:
    """Return the contents of a flight recorder."""
    with path.open("rb") as file:
        # As user code may have left it: shorter, or without end.
        slots = struct.unpack(f"={SLOTS}q", file.read(PAGE_BYTES).ljust(PAGE_BYTES, b"\0"))
        file.seek(max(PAGE_BYTES, file.seek(0, os.SEEK_END) - _MAX_STACK_CHARACTERS))
        stack = file.read(_MAX_STACK_CHARACTERS).decode(errors="backslashreplace")
    return FlightRecord(tuple(filter(None, slots)), stack.strip())


class TaskCoroutine(Coroutine[Any, Any, Any]):
    """Runs a coroutine of a task and records, step by step, that the task runs.

    Args:
        work: The coroutine.
        page: The page of the flight recorder.
        number: The task's assignment.

    Attributes:
        forked: Whether this process is a child that a task has forked.
    """

    __slots__ = ("_number", "_page", "_work")
    forked: ClassVar[bool] = False

    def __init__(self, work: Coroutine[Any, Any, Any], page: memoryview, number: int) -> None:
        self._work = work
        self._page = page
        self._number = number

    def send(self, value: Any) -> Any:
        """Run until the next await."""
        self._page[RUNNING] = self._number
        try:
            return self._work.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            # When one of these leaves an asyncio task, the loop ends and all tasks with it.
            raise TaskExited from error
        finally:
            self._page[RUNNING] = 0
            if self.forked:
                _end_child()

    def throw(self, error: Any, *more: Any) -> Any:
        """Raise an exception in it, and run until the next await."""
        self._page[RUNNING] = self._number
        try:
            return self._work.throw(error, *more)
        except (SystemExit, KeyboardInterrupt) as left:
            raise TaskExited from left
        finally:
            self._page[RUNNING] = 0
            if self.forked:
                _end_child()

    def close(self) -> None:
        """Close the coroutine."""
        self._work.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._work.__await__()

    @classmethod
    def mark_fork(cls) -> None:
        """Note that this process is a child that a task has forked."""
        cls.forked = True

    def __getattr__(self, name: str) -> Any:
        # `cr_frame` and others, by which asyncio and debuggers find a task's stack.
        return getattr(self._work, name)


def _end_child() -> None:
    """End a forked child: the loop, its sockets and all other tasks are the parent's."""
    os.write(2, _FORKED_TEXT)
    os._exit(1)
