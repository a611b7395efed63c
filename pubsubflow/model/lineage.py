"""What lineage tells of a run: its tasks' attempts, and the datasets it consumed and emitted."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct

from pubsubflow.model.api.resources import TaskErrorView
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.model.spec import DagSpec


class TracedAttempt(Struct, frozen=True, kw_only=True):
    """One attempt of a task instance.

    Attributes:
        node: Position of the task in the DAG's spec.
        map_index: Which instance of a mapped task, or NOT_MAPPED.
        attempt: Counted from 1; 0 for an instance that was settled without being handed out.
        started_at: None if it never ran.
        emitted: URIs of the datasets that it really emitted events of, in order.
    """

    node: int
    map_index: int
    attempt: int
    state: TaskState
    started_at: datetime | None
    ended_at: datetime
    emitted: tuple[str, ...] = ()
    error: TaskErrorView | None = None


class Origin(Struct, frozen=True, order=True):
    """A run whose tasks emitted what another run consumed."""

    dag_id: str
    run_id: UUID


class TracedRun(Struct, frozen=True, kw_only=True):
    """A run with all that happened in it.

    Attributes:
        spec: The version of its DAG that it runs.
        started_at: None if it was ended while it was in line.
        consumed: URIs of the datasets whose events it consumed, in order.
        origins: The runs that those events come from, in order.
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
    origins: tuple[Origin, ...]
    attempts: tuple[TracedAttempt, ...] = ()
