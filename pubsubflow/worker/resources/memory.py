"""Memory of processes, with all that they started, as Linux counts it."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_KIB = 1024
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_OWN = ("RssAnon:", "RssShmem:", "VmSwap:")
_SHARE = ("Pss_Anon:", "Pss_Shmem:", "SwapPss:")


def held_bytes(pid: int) -> int:
    """Return how much memory a process and its descendants hold.

    Pages of files count for none, as the kernel can drop them, and those that are shared with the
    zygote count for each.
    """
    return sum(_sum(f"/proc/{each}/status", _OWN) for each in _family(pid))


def resident_bytes(pid: int) -> int:
    """Return how much memory a process alone holds, with pages of files; 0 if it is gone."""
    # Nor is anything known where no file can be opened just now, or on another system.
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    return 0


def share_bytes(pid: int) -> int:
    """Return how much memory a process and its descendants hold, shared pages in proportion.

    It takes the kernel a walk over all pages; where it cannot, the sum of `held_bytes` counts.
    """
    found = 0
    for each in _family(pid):
        share = _sum(f"/proc/{each}/smaps_rollup", _SHARE)
        found += share or _sum(f"/proc/{each}/status", _OWN)
    return found


def _sum(file: str, names: tuple[str, ...]) -> int:
    found = 0
    # It has ended meanwhile, or is not ours to look at.
    with contextlib.suppress(OSError):
        for line in Path(file).read_text().splitlines():
            if line.startswith(names):
                found += int(line.split()[1]) * _KIB
    return found


def _family(pid: int) -> Iterator[int]:
    """Yield a process and its descendants, in whatever session they are."""
    left = [pid]
    while left:
        process = left.pop()
        yield process
        for file in Path(f"/proc/{process}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                left += map(int, file.read_text().split())
