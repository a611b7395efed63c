"""The host's flight recorder: what it did last, for when it cannot say any more.

A file that both processes know. Its first page is shared memory: a number a thread, that of the
trigger which runs now, 0 for none. After it come the stacks that the interpreter writes when it
crashes, or when the daemon asks for them with SIGUSR1 because C code does not let go of the
interpreter. A page that a dead process wrote outlives it.
"""

import faulthandler
import mmap
import os
import signal
import struct
from pathlib import Path

from msgspec import Struct

PAGE_BYTES = 4096
SLOTS = PAGE_BYTES // 8
_MAX_STACK_CHARACTERS = 20_000


class Recorder:
    """The host's end.

    Args:
        path: The file, made by `prepare`.

    Attributes:
        running: What each thread runs now, by its index.
    """

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        self.running = memoryview(mmap.mmap(self._fd, PAGE_BYTES)).cast("q")
        faulthandler.enable(self._fd)
        faulthandler.register(signal.SIGUSR1, self._fd)


class Recorded(Struct, frozen=True):
    """What a recorder holds.

    Attributes:
        running: Numbers of the triggers that ran.
        stack: What the interpreter wrote, if it did.
    """

    running: tuple[int, ...]
    stack: str


def prepare(path: Path) -> None:
    """Make an empty recorder."""
    path.write_bytes(bytes(PAGE_BYTES))


def read(path: Path) -> Recorded:
    """Return what a recorder holds."""
    data = path.read_bytes()
    numbers = struct.unpack_from(f"={SLOTS}q", data)
    stack = data[PAGE_BYTES:].decode(errors="backslashreplace")
    return Recorded(tuple(filter(None, numbers)), stack[-_MAX_STACK_CHARACTERS:].strip())
