"""Execution log: each execution of a task appends one line of fixed length."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import anyio

LINE_BYTES = 128


class Execution(NamedTuple):
    """One execution.

    Attributes:
        moment: Seconds since 1970.
        pid: The process that ran it.
    """

    moment: float
    pid: int
    run_id: str
    dag_id: str
    task_id: str
    map_index: int
    attempt: int

    @property
    def what(self):
        return self[2:]


class ExecutionLog:
    """The file that executions are logged in."""

    def __init__(self, path: Path):
        self.path = path
        path.touch()

    def count(self) -> int:
        return self.path.stat().st_size // LINE_BYTES

    def read(self) -> list[Execution]:
        return [_execution(line) for line in self.path.read_text().splitlines()]

    async def reach(self, count: int):
        """Return when there are so many executions: a moment in the middle of the load."""
        while self.count() < count:  # noqa: ASYNC110 - tasks in other processes write it
            await anyio.sleep(0.005)

    def repeated(self) -> int:
        """Return how many executions were not the first of their attempt."""
        return sum(
            count - 1 for count in Counter(execution.what for execution in self.read()).values()
        )

    def longest_pause(self, since: float) -> float:
        """Return for how long nothing was executed, seconds, after a moment."""
        began, ended = self.pause(since)
        return ended - began

    def pause(self, since: float) -> tuple[float, float]:
        """Return when the longest pause after a moment began and ended, seconds since 1970."""
        moments = [
            since,
            *sorted(execution.moment for execution in self.read() if execution.moment > since),
        ]
        return max(pairwise(moments), key=lambda pair: pair[1] - pair[0], default=(since, since))


def _execution(line: str) -> Execution:
    moment, pid, *names, map_index, attempt = line.split()
    return Execution(float(moment), int(pid), *names, int(map_index), int(attempt))
