"""JSON types of timelines: when the tasks of a run were queued, ran, waited and paused."""

from datetime import datetime
from typing import Literal

from msgspec import Struct


class TimelineSpan(Struct, frozen=True, kw_only=True):
    """A part of a task instance's time.

    Attributes:
        kind: `queued` for a worker, `running`, `waiting` without a slot, or `pause` before a retry.
        end: None while it lasts.
        state: How an attempt ended, or the state that it is in.
        label: What was waited for.
    """

    kind: Literal["queued", "running", "waiting", "pause"]
    start: datetime
    end: datetime | None = None
    attempt: int = 0
    state: str | None = None
    label: str | None = None


class TimelineTask(Struct, frozen=True, kw_only=True):
    """A task instance, with the parts of its time.

    Attributes:
        map_index: Index of an instance of a mapped task; None for a plain task.
    """

    map_index: int | None = None
    state: str
    spans: list[TimelineSpan]


class TimelineBand(Struct, frozen=True, kw_only=True):
    """How many instances of a mapped task ran, in equal parts of its time.

    Attributes:
        start, end: The time from the first start to the last end, or until now.
        running: The most that ran at once in each part.
    """

    start: datetime
    end: datetime
    running: list[int]


class TimelineLane(Struct, frozen=True, kw_only=True):
    """A task of a run; of a mapped one its instances, or a band if they are many.

    Attributes:
        instances: How many there are.
        states: How many are in each state.
        median_seconds, longest_seconds: Of those that have ended.
        tasks: Those that are shown one by one.
    """

    task_id: str
    mapped: bool = False
    instances: int = 1
    states: dict[str, int] = {}
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    median_seconds: float | None = None
    longest_seconds: float | None = None
    tasks: list[TimelineTask] = []
    band: TimelineBand | None = None


class RunTimeline(Struct, frozen=True, kw_only=True):
    """When the tasks of a run were queued, ran, waited and paused.

    Attributes:
        lanes: By task, in topological order; those that have become ready.
        next: The `from` of the lanes that follow; None at the end.
    """

    run_id: str
    dag_id: str
    state: str
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    lanes: list[TimelineLane]
    next: int | None = None
