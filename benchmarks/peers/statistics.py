"""Statistics of samples and of marks; pure."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

from msgspec import Struct

from benchmarks.peers.marks import Mark
from benchmarks.peers.results import Better, Figure


def digits(value: float) -> float:
    """Round to three significant digits."""
    return float(f"{value:.3g}")


def median_figure(
    name: str, values: Sequence[float], unit: str, better: Better = "less", note: str = ""
) -> Figure:
    """Return the figure of several samples."""
    return Figure(
        name,
        digits(statistics.median(values)),
        unit,
        better,
        least=digits(min(values)),
        greatest=digits(max(values)),
        samples=len(values),
        note=note,
    )


class Outcome(Struct, frozen=True):
    """What became of events around a kill.

    Attributes:
        lost: Events that were acknowledged and whose task has not ended.
        doubled: Events for which more than one run has ended.
        begun_again: Events whose task began more than once in the same run.
        first_seconds: From the kill to the first line of a task after it; None if none came.
        all_seconds: From the kill until each event that was acknowledged before it has been worked
            off; None if one was lost.
    """

    lost: int
    doubled: int
    begun_again: int
    first_seconds: float | None
    all_seconds: float | None


def outcome(marks: Sequence[Mark], acknowledged: Mapping[str, float], killed: float) -> Outcome:
    """Judge what tasks have marked.

    Args:
        marks: Of all tasks.
        acknowledged: Key of an event → when the peer said that it has it.
        killed: When the peer was dead.
    """
    starts: dict[tuple[str, str], int] = defaultdict(int)
    ended: dict[str, dict[str, float]] = defaultdict(dict)
    for mark in marks:
        if mark.phase == "start":
            starts[mark.key, mark.run] += 1
        else:
            ended[mark.key].setdefault(mark.run, mark.moment)
    lost = [key for key in acknowledged if key not in ended]
    after = [mark.moment for mark in marks if mark.moment > killed and mark.phase == "start"]
    before = [key for key, moment in acknowledged.items() if moment < killed]
    ends = [min(ended[key].values()) for key in before if key in ended]
    return Outcome(
        lost=len(lost),
        doubled=sum(len(runs) > 1 for key, runs in ended.items() if key in acknowledged),
        begun_again=len({key for (key, _), count in starts.items() if count > 1}),
        first_seconds=min(after) - killed if after else None,
        all_seconds=None if lost or not ends else max(0.0, max(ends) - killed),
    )
