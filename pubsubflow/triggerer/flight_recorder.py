"""A flight recorder: what the host process did last, for the time when it cannot report any more.

A file that both processes know. Its first page is shared memory: a number a thread, the id of the
trigger that runs now, 0 for none. After it come the stacks that the interpreter writes when it
crashes, or when the daemon sends SIGUSR1 because C code holds the interpreter. The page outlives
the process that wrote it.
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


class FlightRecord(Struct, frozen=True):
    """The contents of a flight recorder.

    Attributes:
        running: Ids of the triggers that ran.
        stack: What the interpreter wrote, if it did.
    """

    running: tuple[int, ...]
    stack: str


def prepare(path: Path) -> None:
    """Make an empty flight recorder."""
    path.write_bytes(bytes(PAGE_BYTES))


def read(path: Path) -> FlightRecord:
    """Return the contents of a flight recorder."""
    data = path.read_bytes()
    slots = struct.unpack_from(f"={SLOTS}q", data)
    stack = data[PAGE_BYTES:].decode(errors="backslashreplace")
    return FlightRecord(tuple(filter(None, slots)), stack[-_MAX_STACK_CHARACTERS:].strip())
