"""Open-file limits are raised at the start, and watched while the daemon runs.

A login shell allows 256 open files on macOS and 1,024 on most Linux systems, of which every client,
runner process and connection takes some.
"""

import errno
import os
import resource

import anyio
import structlog
from anyio.abc import TaskStatus
from msgspec import Struct

log = structlog.get_logger(__name__)

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE})
_MOST = 1 << 20
"""Enough for all; an unlimited number is refused by some systems."""
_WATCH_SECONDS = 1.0
_NEEDED = 4
"""A process of user code takes as many."""


class OpenFileLimit(Struct, frozen=True):
    """The limits of this process.

    Attributes:
        before: The limit at its start, which processes of user code keep: programs that use
            select() cannot bear descriptors of 1,024 and more.
        now: The limit in force.
    """

    before: int
    now: int

    @classmethod
    def raised(cls) -> "OpenFileLimit":
        """Raise the soft limit of this process to its hard limit, and return both."""
        before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
        for target in (most, 10_240):  # macOS refuses more than OPEN_MAX, whatever its hard limit
            if not 0 <= before < target <= most:
                continue
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
            except (OSError, ValueError):
                continue
            break
        now = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        unlimited = resource.RLIM_INFINITY
        return cls(*(_MOST if each == unlimited else each for each in (before, now)))


class OpenFileWatch:
    """Logs once when no further file can be opened, and once when that is over.

    The event loop closes connections that it cannot accept, and services try again
    what failed, both without a word on the reason.
    """

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Watch until `stopping` is set."""
        task_status.started()
        exhausted = False
        while not stopping.is_set():
            before, exhausted = exhausted, files_exhausted(_NEEDED)
            if exhausted and not before:
                limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
                log.error("daemon.open_files_exhausted", limit=limit, advice="raise ulimit -n")
            elif before and not exhausted:
                log.info("daemon.open_files_available")
            # At whole seconds of the loop's time, as other services: an idle daemon wakes once.
            with anyio.move_on_after(_WATCH_SECONDS - anyio.current_time() % _WATCH_SECONDS):
                await stopping.wait()


def files_exhausted(needed: int = 1) -> bool:
    """Return whether this process, or the system, cannot open so many more files now."""
    opened: list[int] = []
    try:
        for _ in range(needed):
            # Each at once, not when all are there: what was opened is closed below.
            opened += (os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC),)
    except OSError as error:
        return error.errno in EXHAUSTED
    finally:
        for each in opened:
            os.close(each)
    return False
