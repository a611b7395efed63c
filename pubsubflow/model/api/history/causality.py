"""JSON types of causality: runs and events, and which of them led to which."""

from datetime import datetime
from typing import Literal

from msgspec import Struct

from pubsubflow.model.api.explain import StartedByView


class TracedTask(Struct, frozen=True, kw_only=True):
    """The task instance that emitted an event, or started a run.

    Attributes:
        map_index: Index of an instance of a mapped task; None for a plain task.
        queued_at: When it became ready for a worker.
        started_at: When its first line was run.
    """

    task_id: str
    map_index: int | None = None
    state: str | None = None
    attempt: int = 0
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


class TracedRun(Struct, frozen=True, kw_only=True):
    """A run of a trace.

    Attributes:
        hops: Steps from the focus: negative for a cause, positive for an effect.
        kind, cause: What made it: `dataset`, `cron`, `manual`, `backfill`, …; a line for people.
        started_by: The task that started it, if one did.
        starter: That task's times, if its run is there.
        consumed: Number of events that it consumed; like all counts see `CausalTrace.counted`.
        consumed_pruned: Number of events among those looked at that are removed by now.
        emitted: Number of events that its tasks emitted.
        started: Number of runs that its tasks started.
    """

    run_id: str
    dag_id: str
    hops: int
    state: str
    kind: str
    cause: str
    partition: str | None = None
    error: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    cleared: int = 0
    started_by: StartedByView | None = None
    starter: TracedTask | None = None
    consumed: int = 0
    consumed_pruned: int = 0
    emitted: int = 0
    started: int = 0


class OutcomeCount(Struct, frozen=True, kw_only=True):
    """Why DAGs have not consumed an event.

    Attributes:
        outcome: `pending`, `filtered`, `expired`, `skipped`, `dead`; `unseen` if the DAG subscribed
            later, or the run that consumed the event was pruned.
        count: Number of DAGs, each once for every input and partition.
        dags: The first of them.
        reason: Why, of the first one; for people.
    """

    outcome: str
    count: int
    dags: list[str]
    reason: str | None = None


class TracedEvent(Struct, frozen=True, kw_only=True):
    """An event of a trace.

    Attributes:
        hops: Steps from the focus: negative for a cause, positive for an effect.
        source: `task`, `api`, `cli`, `bus`, …: what it came from.
        run_id, dag_id, task: The task that emitted it, if one did.
        pruned: Whether the run that emitted it is removed: the trail ends here.
        held: Why checks hold it, or why it was discarded.
        consumers: Number of runs that consumed it, by state.
        outcomes: Why the other DAGs that subscribe have not.
    """

    event_id: str
    dataset: str
    hops: int
    partition: str | None = None
    time: datetime
    recorded_at: datetime
    source: str
    run_id: str | None = None
    dag_id: str | None = None
    task: TracedTask | None = None
    pruned: bool = False
    held: str | None = None
    consumers: dict[str, int] = {}
    outcomes: list[OutcomeCount] = []


class TraceLink(Struct, frozen=True, kw_only=True):
    """A run that consumed an event.

    Attributes:
        event_id: The event.
        run_id: The run.
    """

    event_id: str
    run_id: str


class CausalTrace(Struct, frozen=True, kw_only=True):
    """Causes and effects of a run, a task or an event.

    What is left out can be counted: a node has as many causes and effects as its counts say, and
    those that are missing here are returned by its own trace.

    Attributes:
        kind: What it is about.
        id: The run or the event.
        task: The task of the run that it is about, if one was named.
        runs, events: Each once, whatever the number of ways to it; causes first, then by hops.
        consumed: Which runs consumed which events. Which run emitted an event, or started a run,
            stands with these.
        counted: Up to how many causes and effects of each node were counted: a count of so many
            means so many, or more.
        cut: Whether there are more nodes than one trace may have.
    """

    kind: Literal["run", "event"]
    id: str
    task: TracedTask | None = None
    runs: list[TracedRun]
    events: list[TracedEvent]
    consumed: list[TraceLink]
    counted: int
    cut: bool = False
