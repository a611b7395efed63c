"""Draws what happened as text: one row a dataset, one or more a DAG, time from left to right."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

STARTS, WAITS = "●", "○"
ACTIVE, WAITING, NOTHING = "━", "┄", "─"
GAP = 2


@dataclass(frozen=True)
class Run:
    """A run: since when it exists, is active, is over; what it consumed; what else to say."""

    name: str
    dag_id: str
    number: int
    created: datetime
    started: datetime | None
    ended: datetime | None
    events: tuple[str, ...]
    remarks: tuple[str, ...] = ()


@dataclass
class Happened:
    """What a story led to.

    Attributes:
        rows: Name → moment → what is written there.
        notes: The same, written under it.
        rest: What became of events that no run consumed: (fate, labels, reason).
    """

    rows: dict[str, dict[datetime, str]] = field(default_factory=dict)
    notes: dict[str, dict[datetime, str]] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    dags: list[str] = field(default_factory=list)
    rest: list[tuple[str, str, str]] = field(default_factory=list)
    end: datetime | None = None


def draw(happened: Happened) -> str:
    """Return the timeline, and below it what each run consumed."""
    moments = sorted(_moments(happened))
    several_days = len({moment.date() for moment in moments}) > 1
    times = [_time(moment, several_days=several_days) for moment in moments]
    rows: list[tuple[str, list[str], list[str]]] = []
    for name, cells in happened.rows.items():
        written = [cells.get(moment, "") for moment in moments]
        rows.append((name, written, [NOTHING] * len(moments)))
        notes = happened.notes.get(name)
        if notes:
            rows.append(("", [notes.get(moment, "") for moment in moments], [" "] * len(moments)))
    for dag_id in happened.dags:
        name = dag_id if len(happened.dags) > 1 else "runs"
        lanes = _lanes([run for run in happened.runs if run.dag_id == dag_id], moments)
        for number, (written, fills) in enumerate(lanes):
            rows.append(("" if number else name, written, fills))
    widths = [
        max(len(each) for each in (time, *(written[place] for _, written, _ in rows))) + GAP
        for place, time in enumerate(times)
    ]
    margin = max(len(name) for name, _, _ in rows) + GAP
    lines = [" " * margin + "".join(map(str.ljust, times, widths))]
    for name, written, fills in rows:
        cells = map(str.ljust, written, widths, fills)
        lines.append(name.ljust(margin) + "".join(cells))
    listed = _list(happened, several_days=several_days)
    return "\n".join(line.rstrip() for line in (*lines, "", *listed)).rstrip() + "\n"


def _moments(happened: Happened) -> set[datetime]:
    found = {moment for cells in happened.rows.values() for moment in cells}
    for run in happened.runs:
        found.update(each for each in (run.created, run.started, run.ended) if each is not None)
    if happened.end is not None:
        found.add(happened.end)
    return found


def _time(moment: datetime, *, several_days: bool) -> str:
    return f"{moment:%a %H:%M}" if several_days else f"{moment:%H:%M}"


def _lanes(
    runs: Sequence[Run], moments: Sequence[datetime]
) -> Iterable[tuple[list[str], list[str]]]:
    """Return as many rows as runs of a DAG overlap, at least one."""
    size = len(moments)
    lanes: list[tuple[list[str], list[str]]] = []
    for run in runs:
        first = moments.index(run.created)
        last = size if run.ended is None else moments.index(run.ended)
        places = range(first, max(last, first + 1))
        lane = next((lane for lane in lanes if _free(lane, places, brief=last <= first)), None)
        if lane is None:
            lane = ([""] * size, [NOTHING] * size)
            lanes.append(lane)
        written, fills = lane
        start = size if run.started is None else moments.index(run.started)
        sign = f"{STARTS if run.started == run.created else WAITS}{run.number}"
        written[first] = f"{written[first]} {sign}".strip()
        if first < start < size:
            written[start] = f"{STARTS}{run.number}"
        for place in range(first, last):
            fills[place] = WAITING if place < start else ACTIVE
    return lanes or [([""] * size, [NOTHING] * size)]


def _free(lane: tuple[list[str], list[str]], places: range, *, brief: bool) -> bool:
    """Whether a row has room; runs that end at once share a place."""
    written, fills = lane
    return all(fills[place] == NOTHING and (brief or not written[place]) for place in places)


def _list(happened: Happened, *, several_days: bool) -> list[str]:
    """Write a line for each run, and for what became of the other events."""
    lines = []
    for run in happened.runs:
        began = _time(run.started, several_days=several_days) if run.started else "waits"
        lines.append((run.name, began, " ".join(run.events), ", ".join(run.remarks)))
    lines += [(fate, "", labels, reason) for fate, labels, reason in happened.rest]
    longest = [max((len(line[place]) for line in lines), default=0) for place in range(4)]
    widths = [length + GAP if length else 0 for length in longest]
    return ["".join(map(str.ljust, line, widths)) for line in lines]
