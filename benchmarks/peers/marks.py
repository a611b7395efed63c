"""Marks: lines that tasks append to one file, each with its moment on this machine's clock."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

_POLL_SECONDS = 0.002


class Mark(Struct, frozen=True):
    """A line of a task.

    Attributes:
        moment: Seconds since 1970.
        label: Workload and task, such as `pair.down`.
        key: Of the event that the task runs for.
        phase: `start` or `end`.
        run: The peer's id of the run.
    """

    moment: float
    label: str
    key: str
    phase: str
    run: str


def parse(text: str) -> list[Mark]:
    """Return the marks of whole lines."""
    found = []
    for line in text.splitlines():
        moment, label, key, phase, run = line.split(" ", 4)
        found.append(Mark(float(moment), label, key, phase, run))
    return found


class Marks:
    """Reader of the file that tasks append to.

    Args:
        path: The file; created if missing.
    """

    def __init__(self, path: Path) -> None:
        path.touch()
        path.chmod(0o666)
        self._path = path
        self._position = 0

    def clear(self) -> None:
        """Skip the lines so far."""
        self._position = self._path.stat().st_size

    def read(self) -> list[Mark]:
        """Return the lines since the last call."""
        with self._path.open("rb") as file:
            file.seek(self._position)
            whole, end, _ = file.read().rpartition(b"\n")
        self._position += len(whole + end)
        return parse(whole.decode())

    def collect(
        self, enough: Callable[[Sequence[Mark]], bool], seconds: float
    ) -> tuple[list[Mark], bool]:
        """Return the marks that come until there are enough, and whether there were in time."""
        deadline = time.monotonic() + seconds
        found = self.read()
        while not enough(found):
            if time.monotonic() > deadline:
                return found, False
            time.sleep(_POLL_SECONDS)
            found += self.read()
        return found, True

    def wait(self, label: str, phase: str, count: int, seconds: float) -> list[Mark]:
        """Return all marks until so many of a label and phase are there, sorted by moment.

        Args:
            label: Label, or its beginning up to a dot.
            phase: `start` or `end`.
            count: How many of these to wait for.
            seconds: For how long.

        Raises:
            TimeoutError: They are not there in time.
        """

        def seen(marks: Sequence[Mark]) -> int:
            labels = (label, f"{label}.")
            return sum(
                each.phase == phase and (each.label == label or each.label.startswith(labels[1]))
                for each in marks
            )

        found, complete = self.collect(lambda marks: seen(marks) >= count, seconds)
        if not complete:
            raise TimeoutError(
                f"{seen(found)} of {count} times {label} {phase} after {seconds:g} s"
            )
        return sorted(found, key=lambda each: each.moment)
