"""Questions of tasks about other runs, events and kept values; arrays in MessagePack.

They are those of tasks in bundles of Airflow's files, which expect a supervisor that answers them.
A question that changes something takes effect at once, under the fence of the attempt.
"""

from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from pubsubflow.model.values.variables import Variable
from pubsubflow.model.wire.messages import EventInfo

MOST_RUNS = 1_000
"""How many runs an answer has at most: the newest ones."""

MOST_EVENTS = 1_000
"""How many events an answer has at most, when the question does not say."""

MOST_EARLY_BYTES = 256 * 1024
"""A larger value is there for others with the end of its attempt alone."""


class FindRuns(Struct, frozen=True, array_like=True, tag="runs"):
    """Find runs of a DAG; the answer is a tuple of RunFacts.

    Attributes:
        logical_dates: Their dates, as the DAG's tasks see them; None for any.
        run_ids: Their ids, or the keys that were chosen for them; None for any.
        states: None for any.
    """

    dag_id: str
    logical_dates: tuple[datetime, ...] | None = None
    run_ids: tuple[str, ...] | None = None
    states: tuple[str, ...] | None = None


class FindTasks(Struct, frozen=True, array_like=True, tag="tasks"):
    """Find task instances of runs of a DAG; the answer is a tuple of TaskFacts.

    Attributes:
        task_ids: None for all.
        group: The group that they are in, with its nested ones; None for any.
        map_index: One instance of mapped tasks; None for all.
        runs: Their runs; the states there are those of runs.
    """

    runs: FindRuns
    task_ids: tuple[str, ...] | None = None
    group: str | None = None
    map_index: int | None = None


class FindRunBefore(Struct, frozen=True, array_like=True, tag="run_before"):
    """Find the last run of a DAG before a date; the answer is a RunFact, or null."""

    dag_id: str
    before: datetime
    state: str | None = None


class FindTaskBefore(Struct, frozen=True, array_like=True, tag="task_before"):
    """Find the last instance of a task before a date; the answer is a TaskFact, or null.

    Attributes:
        before: None for the last one of all.
    """

    dag_id: str
    task_id: str
    before: datetime | None = None
    map_index: int = -1
    state: str | None = None


class FindEvents(Struct, frozen=True, array_like=True, tag="events"):
    """Find events of a dataset; the answer is a tuple of EventInfo."""

    uri: str
    after: datetime | None = None
    before: datetime | None = None
    limit: int | None = None
    ascending: bool = True


class FindDag(Struct, frozen=True, array_like=True, tag="dag"):
    """Find a DAG; the answer is a DagFact, or null."""

    dag_id: str


class FindVariables(Struct, frozen=True, array_like=True, tag="variables"):
    """Find names of variables; the answer is FoundNames."""

    prefix: str = ""
    limit: int = 1_000
    offset: int = 0


class ReadVariable(Struct, frozen=True, array_like=True, tag="variable"):
    """Read a variable; the answer is a Variable, or null."""

    name: str


class SetVariable(Struct, frozen=True, array_like=True, tag="set_variable"):
    """Set a variable to a text, or delete it if that is null; the answer is whether it was there.

    Attributes:
        value: JSON, or any other text.
    """

    name: str
    value: str | None
    description: str | None = None


class LeaveValue(Struct, frozen=True, array_like=True, tag="leave"):
    """Leave an encoded value under a key for tasks that run beside; None takes it away."""

    key: str
    value: bytes | None


class ChangeState(Struct, frozen=True, array_like=True, tag="state"):
    """Read, set or remove a value that a task or a dataset keeps.

    Attributes:
        operation: `get`, `set`, `delete` or `clear`. The answer to `get` is a KeptValue, or null.
        uri: The dataset; None for the task itself, whose values all of its attempts have.
        value: JSON.
    """

    operation: str
    uri: str | None = None
    key: str = ""
    value: str | None = None
    expires_at: datetime | None = None


class ClearRun(Struct, frozen=True, array_like=True, tag="clear_run"):
    """Clear all tasks of a run, which runs again; the answer is true.

    Attributes:
        run_id: The run's own id.
        clear_number: How often its tasks were cleared when it was looked up: a request that is
            repeated clears them once.
    """

    run_id: str
    clear_number: int


TaskQuestion = (
    FindRuns
    | FindTasks
    | FindRunBefore
    | FindTaskBefore
    | FindEvents
    | FindDag
    | FindVariables
    | ReadVariable
    | SetVariable
    | LeaveValue
    | ChangeState
    | ClearRun
)


class RunFact(Struct, frozen=True, array_like=True):
    """A run.

    Attributes:
        run_key: What it is known by besides its id.
        logical_date: As the DAG's tasks see it: the start of the interval that ends with the tick,
            for a DAG that counts so.
        clear_number: How often tasks of it were cleared.
    """

    dag_id: str
    run_id: str
    run_key: str
    kind: str
    state: str
    logical_date: datetime | None
    tick: datetime | None
    partition: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    params: dict[str, Any] = {}
    clear_number: int = 0


class TaskFact(Struct, frozen=True, array_like=True):
    """A task instance; `state` is None before it is ready, `map_index` -1 if it is not mapped."""

    run: RunFact
    task_id: str
    map_index: int
    state: str | None
    attempt: int = 1
    started_at: datetime | None = None
    ended_at: datetime | None = None


class DagFact(Struct, frozen=True, array_like=True):
    """A DAG; `next_run` is its next tick."""

    dag_id: str
    paused: bool
    file: str
    owner: str | None
    tags: tuple[str, ...]
    next_run: datetime | None


class FoundNames(Struct, frozen=True, array_like=True):
    """Names of variables, and how many there are in all."""

    names: tuple[str, ...]
    total: int


class KeptValue(Struct, frozen=True, array_like=True):
    """A value that a task or dataset keeps, as JSON."""

    value: str


ANSWERS: dict[type, Any] = {
    FindRuns: tuple[RunFact, ...],
    FindTasks: tuple[TaskFact, ...],
    FindRunBefore: RunFact | None,
    FindTaskBefore: TaskFact | None,
    FindEvents: tuple[EventInfo, ...],
    FindDag: DagFact | None,
    FindVariables: FoundNames,
    SetVariable: bool,
    LeaveValue: None,
    ChangeState: KeptValue | None,
    ClearRun: bool,
}
"""The type of the answer to each question that does not hold secrets."""


decode_found_variable = msgspec.msgpack.Decoder(Variable | None).decode


def decode_fact(question: TaskQuestion, data: bytes) -> Any:
    """Return the answer to a question from its encoded form."""
    return msgspec.msgpack.decode(data, type=ANSWERS[type(question)])
