"""Written pages: memory that an attempt will write to is copied before the attempt is there.

A forked process shares its memory with its parent until it writes to it; then the kernel copies a
page, and that is most of what a forked attempt costs. Attempts of a file write to nearly the same
two thousand pages, where references are counted and caches are filled. So one of them notes which
they were, and a process that is forked ahead has them copied while it waits for its attempt.
"""

import ctypes
import mmap
import os
from array import array
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_POPULATE_WRITE = 23  # of madvise, since Linux 5.14; older ones refuse it, and nothing is copied
# Bits of /proc/self/pagemap, see Documentation/admin-guide/mm/pagemap.rst of Linux.
_PRESENT, _OF_FILE, _EXCLUSIVE = 1 << 63, 1 << 61, 1 << 56
_PAGE = mmap.PAGESIZE
_ENTRY = 8
_COUNT_BITS = 12
# What a task has loaded is in long ranges: that is not what others write to.
_LONGEST = 64
_MOST_PAGES = 4_096
_MOST_RANGES = 4_096
_madvise = ctypes.CDLL(None, use_errno=True).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class WrittenPages:
    """The ranges of pages that an attempt has written to, shared with all children to come.

    Two children that note at once mix their ranges, which does no harm: to copy a page changes
    nothing of it, and an address that is not mapped is left out by the kernel.
    """

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, _MOST_RANGES * _ENTRY)

    @property
    def known(self) -> bool:
        """Whether an attempt has noted its pages."""
        return self._shared[:_ENTRY] != bytes(_ENTRY)

    def copy(self) -> None:
        """In a child: have the pages copied."""
        for entry in memoryview(self._shared).cast("Q"):
            if not entry:
                return
            count = entry & ((1 << _COUNT_BITS) - 1)
            _madvise((entry >> _COUNT_BITS) * _PAGE, count * _PAGE, _POPULATE_WRITE)

    def note(self) -> None:
        """In a child that has run an attempt: note what it has written to."""
        left, found = _MOST_PAGES, array("Q")
        with suppress(OSError):  # no such file, or not to be read: then nothing is noted
            for first, count in _written():
                left -= count
                if left < 0 or len(found) == _MOST_RANGES:
                    break
                found.append(first << _COUNT_BITS | count)
        self._shared[: len(found) * _ENTRY] = found.tobytes()

    def forget(self) -> None:
        """Forget the pages: what has been imported since has moved them."""
        self._shared[:] = bytes(len(self._shared))


def _written() -> Iterator[tuple[int, int]]:
    """Yield the ranges of memory that this process alone has: first page, number of pages."""
    pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)
    try:
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, modes = line.split(maxsplit=2)[:2]
            if modes.startswith("rw") and modes.endswith("p"):
                first, end = (int(each, 16) // _PAGE for each in span.split("-"))
                entries = array("Q", os.pread(pagemap, (end - first) * _ENTRY, first * _ENTRY))
                yield from _ranges(first, entries)
    finally:
        os.close(pagemap)


def _ranges(first: int, entries: "array[int]") -> Iterator[tuple[int, int]]:
    wanted, count = _PRESENT | _EXCLUSIVE, 0
    for number, entry in enumerate((*entries, 0), first):
        if entry & (wanted | _OF_FILE) == wanted:
            count += 1
            continue
        if 0 < count <= _LONGEST:
            yield number - count, count
        count = 0
