"""Short tasks are sent ahead: a process has the next ones at hand when it ends one."""

import asyncio
from collections.abc import Callable

from pubsubflow.worker.assignment import Assignment
from pubsubflow.worker.processes.runner_process import RunnerProcess
from pubsubflow.worker.processes.runner_set import RunnerSet
from pubsubflow.worker.processes.sent import SentAssignments
from pubsubflow.worker.settings import WorkerSettings
from pubsubflow.worker.source_cache import FetchedSource

SHORT_SECONDS = 0.01
"""Tasks are sent ahead while they take less, and are not left behind one that takes more."""
_MOST = 4
"""How many tasks a process has behind the one that runs, and a worker takes for it."""
_WEIGHT = 0.1
_LATE_SECONDS = 0.02
_BEGIN_SECONDS = 1.0


class TasksAhead:
    """Decides how many tasks a pool takes and sends ahead, and takes back what would wait long.

    Args:
        settings: The worker's.
        runners: The processes, for one task at a time.
        on_capacity: Called with how many more tasks the pool takes from now on, or fewer.
        on_late: Called with tasks that wait behind a long one, and do not begin there any more.

    Attributes:
        extra: How many more tasks than usual the pool takes.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        runners: RunnerSet,
        *,
        on_capacity: Callable[[int], None],
        on_late: Callable[[list[Assignment]], None],
    ) -> None:
        self._most = _MOST * settings.processes if settings.prefetch > 0 else 0
        self._runners = runners
        self._on_capacity = on_capacity
        self._on_late = on_late
        self._mean_seconds = 1.0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self.extra = 0

    def count(self, seconds: float) -> None:
        """Count how long a task took: more of them are taken while they are short.

        In the mean each task has a tenth of the weight of all before it.
        """
        self._mean_seconds += _WEIGHT * (min(max(seconds, 0.0), 1.0) - self._mean_seconds)
        extra = self._most if self._mean_seconds < SHORT_SECONDS else 0
        if extra != self.extra and not self._stopped:
            more, self.extra = extra - self.extra, extra
            self._on_capacity(more)

    def choose(self, source: FetchedSource) -> RunnerProcess | None:
        """Return the process of the same code that has the least to do, if it may have more."""
        # While there may be another process, or one starts, the task gets that.
        if not self.extra or self._runners.starting or not self._runners.is_full:
            return None
        found = None
        for runner in self._runners.all:
            if (
                runner.process == source.process
                and (found is None or len(runner.assignments) < len(found.assignments))
                and _takes_more(runner)
            ):
                found = runner
        return found

    def watch(self) -> None:
        """Take back what waits behind a task that turns out to be a long one, as it does."""
        if self._timer is None:
            self._timer = self._loop.call_later(_LATE_SECONDS, self._take_back)

    def stop(self) -> None:
        """Take no more tasks than now, and give back none by itself."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _take_back(self) -> None:
        self._timer = None
        for sent in [each.assignments for each in self._runners.all if _is_late(each.assignments)]:
            self._on_late(sent.revoke())
        if any(len(runner.assignments) > self._runners.slots for runner in self._runners.all):
            self.watch()


def _takes_more(runner: RunnerProcess) -> bool:
    """Return whether a process may get another task behind the one that runs."""
    sent = runner.assignments
    front = sent.front
    return (
        front is not None
        and sent.page is not None
        and not runner.ending
        and front.decided_outcome is None
        and len(sent) <= _MOST
        and not runner.is_due
        and sent.front_seconds < SHORT_SECONDS
    )


def _is_late(sent: SentAssignments) -> bool:
    """Return whether tasks wait behind one that has run for too long."""
    front = sent.front
    if front is None or sent.page is None or len(sent) == 1:
        return False
    # One that has not begun waits for the machine, as all others do.
    return sent.front_seconds > (SHORT_SECONDS if sent.has_begun(front) else _BEGIN_SECONDS)
