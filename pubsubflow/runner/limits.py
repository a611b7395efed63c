"""Limits of a process for one task that declares resources; the peak of a process' memory.

Limits are set before any code of the task runs.

| limit | with a control group | without |
|---|---|---|
| memory | `memory.max` of the group: the kernel ends it at once | the worker watches, and ends it |
| a single large allocation | `RLIMIT_DATA`: fails in the task, as MemoryError | likewise |
| CPU | `cpu.max` of the group: a share of the time | affinity: as many CPUs, rounded up |
"""

import contextlib
import os
import resource
import sys
import time
from pathlib import Path

from msgspec import Struct

_KIB = 1024
_UNIT = 1 if sys.platform == "darwin" else 1024
_CLEAR, _RESET_PEAK = "/proc/self/clear_refs", b"5"
_KEPT_SECONDS = 0.1
_ALLOCATION_FACTOR = 2
"""Memory that is allocated and never touched costs nothing, and libraries do that: only what goes
far beyond the limit is refused."""


class ProcessLimits(Struct, frozen=True, array_like=True):
    """The limits of a process.

    Attributes:
        memory: Bytes, on top of what the process shares with the zygote; 0 for no limit.
        cpus: Numbers of the CPUs that it may run on; empty for all.
    """

    memory: int = 0
    cpus: tuple[int, ...] = ()


def apply_limits(limits: ProcessLimits) -> None:
    """Set the limits of this process, which all that it starts inherits."""
    if limits.cpus and sys.platform == "linux":
        # The CPUs that the daemon may use may have changed since.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, limits.cpus)
    if limits.memory:
        most = _data_bytes() + _ALLOCATION_FACTOR * limits.memory
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def lift_allocation_limit() -> None:
    """Allow allocations again when the task has failed for want of memory: to say so takes some."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def _data_bytes() -> int:
    """Return how much of `RLIMIT_DATA` the process uses; 0 where the system does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) * _KIB
    return 0


class PeakMemory:
    """Reads the most memory that this process, or one that it started, has held at once."""

    def __init__(self) -> None:
        self._own, self._children = 0, _peak(resource.RUSAGE_CHILDREN)
        self._floor, self._restart_at = 0, 0.0

    def read(self) -> int:
        """Return the peak since the start of the task, in bytes; 0 where it is not known."""
        # What has not grown may be the peak of an earlier task: the system keeps one for all.
        own, children = _peak(resource.RUSAGE_SELF), _peak(resource.RUSAGE_CHILDREN)
        found = max(own if own > self._own else 0, children if children > self._children else 0)
        return found * _UNIT

    def restart(self) -> None:
        """Begin anew with the next task.

        A peak that the last task has not raised stays for a moment: what a task that follows at
        once is said to have held, the process held then or a moment ago.
        """
        self._own, self._children = 0, _peak(resource.RUSAGE_CHILDREN)
        now = time.monotonic()
        if now < self._restart_at and _peak(resource.RUSAGE_SELF) == self._floor:
            return
        try:
            # Opened each time: in a child that a task forks, the file would be the parent's.
            file = os.open(_CLEAR, os.O_WRONLY)
            try:
                os.write(file, _RESET_PEAK)
            finally:
                os.close(file)
            self._restart_at = now + _KEPT_SECONDS
        except OSError:  # another system, or the process may not look at itself
            self._own = _peak(resource.RUSAGE_SELF)
        self._floor = _peak(resource.RUSAGE_SELF)


def _peak(who: int) -> int:
    return resource.getrusage(who).ru_maxrss
