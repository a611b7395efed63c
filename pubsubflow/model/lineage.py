"""Run lineage: a run's attempts, and the datasets that it consumed and emitted."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct

from pubsubflow.model.api.resources import TaskErrorView
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.model.spec import DagSpec


class AttemptLineage(Struct, frozen=True, kw_only=True):
    """One attempt of a task instance.

    Attributes:
        node: Position of the task in the DAG's spec.
        map_index: Which instance of a mapped task, or NOT_MAPPED.
        attempt: Counted from 1; 0 for an instance that ended without running.
        started_at: None if it never ran.
        emitted: URIs of the datasets of the events that it emitted, in order.
    """

    node: int
    map_index: int
    attempt: int
    state: TaskState
    started_at: datetime | None
    ended_at: datetime
    emitted: tuple[str, ...] = ()
    error: TaskErrorView | None = None


class ParentRun(Struct, frozen=True, order=True):
    """A run whose tasks emitted events that another run consumed."""

    dag_id: str
    run_id: UUID


class RunLineage(Struct, frozen=True, kw_only=True):
    """A run with its attempts, inputs and outputs.

    Attributes:
        spec: The version of its DAG that it runs.
        started_at: None if it ended while it was queued.
        consumed: URIs of the datasets whose events it consumed, in order.
        parents: The runs that those events come from, in order.
        attempts: Empty while the run goes on.
    """

    run_id: UUID
    spec: DagSpec
    state: RunState
    logical_time: datetime | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    error: str | None
    consumed: tuple[str, ...]
    parents: tuple[ParentRun, ...]
    attempts: tuple[AttemptLineage, ...] = ()
