"""What people and programs see: the JSON of the API, decoded again by its clients.

Outsiders name a run by its UUID and a task instance by `<run_id>.<task_id>`, with
`.<map_index>` at the end when the task is mapped. Moments carry a zone.
"""

from datetime import datetime
from typing import Any, Generic, TypeVar

from msgspec import Struct, field

T = TypeVar("T")
NOT_STARTED = "none"


class Page(Struct, Generic[T], frozen=True):
    """A part of a list.

    Attributes:
        next: The `after` of the next part, None at the end of the list. A part may hold fewer
            items than asked for although there are more.
    """

    items: list[T]
    next: str | None = None


class ImportErrorView(Struct, frozen=True, kw_only=True):
    """A DAG file that could not be imported; the last good versions of its DAGs stay in force."""

    file: str
    error: str
    traceback: str | None = None
    read_at: datetime


class RunBrief(Struct, frozen=True, kw_only=True):
    """A run in one line."""

    run_id: str
    state: str
    created_at: datetime
    ended_at: datetime | None = None


class DagView(Struct, frozen=True, kw_only=True):
    """A DAG in a list.

    Attributes:
        schedule: As users write it; None when it runs only when asked.
        version: Counts the DAG's versions, from 1.
        present: Whether it still stands in its file.
        active_runs, queued_runs: Runs that are running, and that wait for one of those to end.
        tasks: Number of tasks.
        next_tick: When its time comes next, if it has a timetable.
        import_error: Why its file cannot be imported now, if so.
        revision: Another one after every new version, pause or unpause.
    """

    dag_id: str
    revision: str
    schedule: str | None
    file: str
    version: int
    present: bool
    paused: bool
    active_runs: int
    queued_runs: int
    tasks: int
    tags: tuple[str, ...] = ()
    owner: str | None = None
    description: str | None = None
    last_run: RunBrief | None = None
    next_tick: datetime | None = None
    import_error: str | None = None


class DagPage(Page[DagView], frozen=True):
    """A part of the list of DAGs, and all files that cannot be imported."""

    import_errors: list[ImportErrorView] = field(default_factory=list)


class DagTaskView(Struct, frozen=True, kw_only=True):
    """A task of a DAG."""

    task_id: str
    operator: str
    kind: str
    role: str
    upstream: list[str]
    trigger_rule: str
    retries: int
    mapped: bool
    timeout_seconds: float | None = None
    outlets: tuple[str, ...] = ()
    inlets: tuple[str, ...] = ()
    queue: str = "default"
    doc: str | None = None
    line: int | None = None


class InputView(Struct, frozen=True, kw_only=True):
    """A place where a dataset stands in a schedule.

    Attributes:
        pending: Events that no run has consumed yet.
    """

    place: int
    dataset: str
    pending: int


class DagDetail(DagView, frozen=True, kw_only=True):
    """All about a DAG as it is in force."""

    inputs: list[InputView]
    graph: list[DagTaskView]
    params: dict[str, Any]
    params_schema: dict[str, Any] | None = None
    start: datetime | None = None
    end: datetime | None = None
    catchup: bool = False
    max_active_runs: int
    timeout_seconds: float | None = None
    on_pause: str = "hold"
    line: int | None = None
    created_at: datetime


class RunView(Struct, frozen=True, kw_only=True):
    """A run.

    Attributes:
        kind: `dataset`, `cron`, `manual`.
        cause: One line for people: why it exists.
        version: The version of its DAG that it runs.
        cleared: How often tasks of it were cleared, to run again.
    """

    run_id: str
    dag_id: str
    state: str
    kind: str
    cause: str
    version: int
    run_key: str
    params: dict[str, Any]
    logical_time: datetime | None = None
    partition: str | None = None
    error: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    cleared: int = 0


class RunDetail(RunView, frozen=True, kw_only=True):
    """A run and how many of its task instances stand where; those not started count as `none`."""

    tasks: dict[str, int]


class TaskErrorView(Struct, frozen=True, kw_only=True):
    """Why an attempt failed."""

    type: str
    message: str
    traceback: str = ""
    final: bool = False


class AttemptView(Struct, frozen=True, kw_only=True):
    """An attempt that another one followed.

    Attributes:
        delivery: Grows whenever the task was handed out again, also for a next attempt.
        state: `failed`; for one before the task was cleared, what it had come to then, or
            `cleared` if it had not ended.
    """

    attempt: int
    delivery: int
    worker: str | None = None
    started_at: datetime | None = None
    ended_at: datetime
    error: TaskErrorView | None = None
    state: str = "failed"


class TaskView(Struct, frozen=True, kw_only=True):
    """A task instance of a run.

    Attributes:
        id: What outsiders call it.
        map_index: Which instance of a mapped task, from 0; None for a plain one.
        state: One of the states of tasks, or `none` while it is not ready.
        attempt: The latest, counted from 1; 0 before the first.
        length: Number of elements of its result, when that is a list.
        waits_for: Of one that is ready, what has no free slot for it.
    """

    id: str
    run_id: str
    dag_id: str
    task_id: str
    map_index: int | None = None
    state: str
    attempt: int = 0
    operator: str = "task"
    worker: str | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    length: int | None = None
    error: TaskErrorView | None = None
    waits_for: str | None = None


class TaskDetail(TaskView, frozen=True, kw_only=True):
    """A task instance with its result and the attempts before the latest.

    Attributes:
        result: The returned value, if it is JSON and not large.
        result_bytes: Size of the result as it is stored.
    """

    attempts: list[AttemptView]
    result: Any = None
    result_bytes: int = 0


class LogLine(Struct, frozen=True, kw_only=True):
    """One line of a task's output.

    Attributes:
        stream: `stdout`, `stderr` or `log`.
        fields: What a log line says besides its message.
    """

    attempt: int
    time: datetime
    stream: str
    message: str
    fields: dict[str, Any] = {}


class PoolView(Struct, frozen=True, kw_only=True):
    """A pool: so many of the tasks that name it run at once.

    Attributes:
        slots: How many; None for one that tasks name and nobody has set: it has no bound.
        used: How many of its tasks run or are handed out.
        waiting: How many are ready and wait.
        changed_at: When its slots were set last.
        revision: Differs after every change; see `If-Match`.
    """

    name: str
    slots: int | None
    used: int
    waiting: int
    changed_at: datetime | None = None
    revision: str


class ClearedTaskView(Struct, frozen=True, kw_only=True):
    """A task instance that was cleared, and the state that it was in."""

    task_id: str
    map_index: int | None = None
    state: str


class ClearedRun(Struct, frozen=True, kw_only=True):
    """What was cleared of a run, or would be.

    Attributes:
        state: The run's state now.
    """

    run_id: str
    state: str
    dry_run: bool
    tasks: list[ClearedTaskView]


class DatasetView(Struct, frozen=True, kw_only=True):
    """A dataset.

    Attributes:
        consumers: DAGs whose schedule holds it.
    """

    dataset: str
    name: str | None = None
    group: str | None = None
    extra: dict[str, Any]
    created_at: datetime
    consumers: list[str]
    last_event_id: str | None = None
    last_event_at: datetime | None = None


class EventView(Struct, frozen=True, kw_only=True):
    """A dataset event.

    Attributes:
        time: When it happened, by whoever reported it.
        recorded_at: When it became durable.
        source: `task`, `api`, `cli`, `bus`.
        run_id, dag_id, task_id, map_index: The task that emitted it, if a task did.
    """

    event_id: str
    dataset: str
    extra: dict[str, Any]
    partition: str | None = None
    time: datetime
    recorded_at: datetime
    source: str
    run_id: str | None = None
    dag_id: str | None = None
    task_id: str | None = None
    map_index: int | None = None


class PostedEvents(Struct, frozen=True, kw_only=True):
    """The answer to posted events.

    Attributes:
        ids: One an event, in order.
        duplicates: Positions of events that had been posted before; their ids are the first ones.
    """

    ids: list[str]
    duplicates: list[int] = []


class StartedRun(Struct, frozen=True, kw_only=True):
    """The answer to a request for a run."""

    run_id: str


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error, by RFC 9457.

    Attributes:
        title: The error's sort, always the same for one status.
        detail: One line that says what to do.
        index: Position of the offending event in a list.
        field: Path of the offending field.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    index: int | None = None
    field: str | None = None
