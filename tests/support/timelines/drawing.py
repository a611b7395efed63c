"""Drawing of a timeline as text: one row a dataset, one or more a DAG, time from left to right."""

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
class Timeline:
    """Events, runs and outcomes of a scenario.

    Attributes:
        rows: Name → moment → what is written there.
        notes: The same, written under it.
        rest: Outcomes of events that no run consumed: (outcome, labels, reason).
    """

    rows: dict[str, dict[datetime, str]] = field(default_factory=dict)
    notes: dict[str, dict[datetime, str]] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    dags: list[str] = field(default_factory=list)
    rest: list[tuple[str, str, str]] = field(default_factory=list)
    end: datetime | None = None


def draw(timeline: Timeline) -> str:
    """Return the timeline, and below it what each run consumed."""
    moments = sorted(_moments(timeline))
    several_days = len({moment.date() for moment in moments}) > 1
    times = [_time(moment, several_days=several_days) for moment in moments]
    rows: list[tuple[str, list[str], list[str]]] = []
    for name, texts in timeline.rows.items():
        written = [texts.get(moment, "") for moment in moments]
        rows.append((name, written, [NOTHING] * len(moments)))
        notes = timeline.notes.get(name)
        if notes:
            rows.append(("", [notes.get(moment, "") for moment in moments], [" "] * len(moments)))
    for dag_id in timeline.dags:
        name = dag_id if len(timeline.dags) > 1 else "runs"
        tracks = _tracks([run for run in timeline.runs if run.dag_id == dag_id], moments)
        for number, (written, fills) in enumerate(tracks):
            rows.append(("" if number else name, written, fills))
    widths = [
        max(len(each) for each in (time, *(written[column] for _, written, _ in rows))) + GAP
        for column, time in enumerate(times)
    ]
    margin = max(len(name) for name, _, _ in rows) + GAP
    lines = [" " * margin + "".join(map(str.ljust, times, widths))]
    for name, written, fills in rows:
        texts = map(str.ljust, written, widths, fills)
        lines.append(name.ljust(margin) + "".join(texts))
    listed = _list(timeline, several_days=several_days)
    return "\n".join(line.rstrip() for line in (*lines, "", *listed)).rstrip() + "\n"


def _moments(timeline: Timeline) -> set[datetime]:
    found = {moment for texts in timeline.rows.values() for moment in texts}
    for run in timeline.runs:
        found.update(each for each in (run.created, run.started, run.ended) if each is not None)
    if timeline.end is not None:
        found.add(timeline.end)
    return found


def _time(moment: datetime, *, several_days: bool) -> str:
    return f"{moment:%a %H:%M}" if several_days else f"{moment:%H:%M}"


def _tracks(
    runs: Sequence[Run], moments: Sequence[datetime]
) -> Iterable[tuple[list[str], list[str]]]:
    """Return as many rows as runs of a DAG overlap, at least one."""
    size = len(moments)
    tracks: list[tuple[list[str], list[str]]] = []
    for run in runs:
        first = moments.index(run.created)
        last = size if run.ended is None else moments.index(run.ended)
        columns = range(first, max(last, first + 1))
        brief = last <= first
        track = next((track for track in tracks if _free(track, columns, brief=brief)), None)
        if track is None:
            track = ([""] * size, [NOTHING] * size)
            tracks.append(track)
        written, fills = track
        start = size if run.started is None else moments.index(run.started)
        sign = f"{STARTS if run.started == run.created else WAITS}{run.number}"
        written[first] = f"{written[first]} {sign}".strip()
        if first < start < size:
            written[start] = f"{STARTS}{run.number}"
        for column in range(first, last):
            fills[column] = WAITING if column < start else ACTIVE
    return tracks or [([""] * size, [NOTHING] * size)]


def _free(track: tuple[list[str], list[str]], columns: range, *, brief: bool) -> bool:
    """Whether a row has room; runs that end at once share a column."""
    written, fills = track
    return all(fills[column] == NOTHING and (brief or not written[column]) for column in columns)


def _list(timeline: Timeline, *, several_days: bool) -> list[str]:
    """Write a line for each run, and for the outcomes of the other events."""
    lines = []
    for run in timeline.runs:
        began = _time(run.started, several_days=several_days) if run.started else "waits"
        lines.append((run.name, began, " ".join(run.events), ", ".join(run.remarks)))
    lines += [(outcome, "", labels, reason) for outcome, labels, reason in timeline.rest]
    longest = [max((len(line[column]) for line in lines), default=0) for column in range(4)]
    widths = [length + GAP if length else 0 for length in longest]
    return ["".join(map(str.ljust, line, widths)) for line in lines]
