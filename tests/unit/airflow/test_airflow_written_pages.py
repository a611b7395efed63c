"""Memory that a child has written to is copied in the next one before that writes (Linux 5.14)."""

import ctypes
import mmap
import os
from array import array
from pathlib import Path

from pubsubflow.airflow.inside.processes.written_pages import WrittenPages

PAGE = mmap.PAGESIZE
EXCLUSIVE = 1 << 56
WRITTEN = 10


def in_child(run) -> int:
    """Return what a function gives in a forked process, a small number."""
    pid = os.fork()
    if not pid:
        code = 255
        try:
            code = run()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def own_pages(address: int, count: int) -> list[int]:
    """Return which pages of a range this process shares with no other."""
    with Path("/proc/self/pagemap").open("rb", 0) as pagemap:
        entries = array("Q", os.pread(pagemap.fileno(), count * 8, address // PAGE * 8))
    return [number for number, entry in enumerate(entries) if entry & EXCLUSIVE]


def test_what_one_child_has_written_to_is_copied_in_the_next():
    pages, count = WrittenPages(), 32
    with mmap.mmap(-1, count * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(b"x" * count * PAGE)
        cell = ctypes.c_char.from_buffer(memory)
        address = ctypes.addressof(cell)

        def write() -> int:
            memory[WRITTEN * PAGE] = memory[(WRITTEN + 1) * PAGE] = 1
            pages.note()
            return 0

        def copy() -> int:
            before = own_pages(address, count)
            pages.copy()
            after = own_pages(address, count)
            same = memory[:] == b"x" * count * PAGE
            return int((before, after, same) == ([], [WRITTEN, WRITTEN + 1], True))

        assert not pages.known
        assert in_child(write) == 0
        assert pages.known
        assert in_child(copy) == 1
        pages.forget()
        assert not pages.known
        del cell
