"""JSON types of DAGs, runs, tasks, pools, datasets and events, and of problem documents.

A run is identified by its UUID and a task instance by `<run_id>.<task_id>`, with `.<map_index>` at
the end if the task is mapped. All times have a zone.
"""

from datetime import datetime
from typing import Any, Generic, TypeVar

from msgspec import Struct, field

from pubsubflow.model.api.version_shares import PinView, VersionShare

T = TypeVar("T")
NOT_STARTED = "none"


class Page(Struct, Generic[T], frozen=True):
    """A page of a list.

    Attributes:
        next: The `after` of the next page; None at the end of the list. A page may hold fewer items
            than `limit` although more follow.
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
        schedule: As users write it; None if only a request starts it.
        version: Number of the DAG's version, from 1.
        present: Whether its file defines it now.
        active_runs, queued_runs: Number of running runs, and of those that wait for one to end.
        tasks: Number of tasks.
        next_tick: The next tick, if it has a timetable.
        import_error: Why its file cannot be imported now, if so.
        revision: Differs after every new version, pause or unpause; see `If-Match`.
        missing_since: Since when it is not in the DAGs folder, if its events wait for its return.
        newest_version: Number of the version that its file defines.
        pinned: Whether it stays at its version when its file defines another one.
        recent_runs: Its last runs, the oldest first, where a request names how many.
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
    missing_since: datetime | None = None
    newest_version: int | None = None
    pinned: bool = False
    recent_runs: list[RunBrief] = []


class Reload(Struct, frozen=True, kw_only=True):
    """A request to import all DAG files again, which the loaders have got."""

    requested_at: datetime


class DagPage(Page[DagView], frozen=True):
    """A page of the list of DAGs, and all files that cannot be imported."""

    import_errors: list[ImportErrorView] = field(default_factory=list)


class ResourcesView(Struct, frozen=True, kw_only=True):
    """What a task may use.

    Attributes:
        memory: Bytes; None without a bound.
        cpu: Number of CPUs; None without a bound.
    """

    memory: int | None = None
    cpu: float | None = None


class DagTaskView(Struct, frozen=True, kw_only=True):
    """A task of a DAG.

    Attributes:
        map_group: The mapped group that it is in; each index goes through that for itself.
    """

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
    resources: ResourcesView | None = None
    map_group: str | None = None


class InputView(Struct, frozen=True, kw_only=True):
    """An input of a schedule.

    Attributes:
        place: Index of the input in the expression.
        dataset: URI, or a pattern.
        pending: Number of events that no run has consumed yet.
    """

    place: int
    dataset: str
    pending: int


class DagDetail(DagView, frozen=True, kw_only=True):
    """A DAG with its inputs, tasks and params, in the version in force.

    Attributes:
        presets: Name → params that people may start a run with.
        pin: When and by whom it was pinned to its version.
        shares: Two versions that share its new runs, the one in force first; empty without a share.
    """

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
    presets: dict[str, dict[str, Any]] = {}
    pin: PinView | None = None
    shares: list[VersionShare] = []


class RunView(Struct, frozen=True, kw_only=True):
    """A run.

    Attributes:
        kind: `dataset`, `cron`, `manual`, `backfill`, `replay`, `check`.
        cause: Why it exists: one line for people.
        version: The version of its DAG that it runs.
        cleared: How often tasks of it were cleared.
        tags, note: What people put on it.
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
    tags: tuple[str, ...] = ()
    note: str | None = None


class CallbackView(Struct, frozen=True, kw_only=True):
    """A call of a function or notifier after an outcome.

    Attributes:
        kind: `on_success`, `on_failure`, `on_retry`, `on_skipped`, `deadline` or `fresh`.
        name: The function, or the type of the notifier.
        attempt: The attempt of the task that it is about; 0 for a run.
        state: `queued`, also between two tries, `running`, `success` or `failed`.
        tries: How often it was tried.
        error: Why the last try failed.
        output: What it printed and logged in its last try.
    """

    id: int
    kind: str
    name: str
    attempt: int = 0
    state: str
    tries: int
    error: str | None = None
    output: str | None = None
    created_at: datetime
    ended_at: datetime | None = None


class RunDetail(RunView, frozen=True, kw_only=True):
    """A run and the number of its task instances by state; `none` for those not started.

    Attributes:
        callbacks: The calls about the run itself.
        waits_for: What a queued run waits for.
    """

    tasks: dict[str, int]
    callbacks: list[CallbackView] = []
    waits_for: str | None = None


class TaskErrorView(Struct, frozen=True, kw_only=True):
    """Why an attempt failed."""

    type: str
    message: str
    traceback: str = ""
    final: bool = False


class AttemptView(Struct, frozen=True, kw_only=True):
    """An attempt before the latest one.

    Attributes:
        delivery: Grows with every delivery of the task to a worker, also for a further attempt.
        state: `failed`; for an attempt before the task was cleared its state at that time, or
            `cleared` if it had not ended.
        peak_memory: The most memory that its process held, bytes; None where that is not known.
    """

    attempt: int
    delivery: int
    worker: str | None = None
    started_at: datetime | None = None
    ended_at: datetime
    error: TaskErrorView | None = None
    state: str = "failed"
    peak_memory: int | None = None


class TaskView(Struct, frozen=True, kw_only=True):
    """A task instance of a run.

    Attributes:
        id: Its id in the API.
        map_index: Index of an instance of a mapped task, from 0; None for a plain task.
        state: One of the states of tasks, or `none` while it is not ready.
        attempt: The latest attempt, counted from 1; 0 before the first.
        length: Number of elements of its result, if that is a list.
        waits_for: What has no free slot for it, or why no worker takes it.
        peak_memory: The most memory that its process held, bytes; None where that is not known, as
            of async tasks that share a process.
        map_name: Name of an instance, by the `map_index_template` of its task.
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
    peak_memory: int | None = None
    map_name: str | None = None


class TaskDetail(TaskView, frozen=True, kw_only=True):
    """A task instance with its result and the attempts before the latest.

    Attributes:
        result: The returned value, if it is JSON and not large.
        result_bytes: Size of the result as it is stored.
        result_stored: Whether the result is in the result store.
        result_keeper: The executor with which the result stays while the run lasts; empty for none.
        result_pruned: Whether retention has removed the result.
        results: Key → value of what it has pushed, if it is JSON and not large.
        results_bytes: Size of that as it is stored, with `rendered`.
        rendered: Template field → its text as it was rendered, without secrets.
        callbacks: The calls about its outcomes.
    """

    attempts: list[AttemptView]
    result: Any = None
    result_bytes: int = 0
    result_pruned: bool = False
    results: dict[str, Any] = {}
    results_bytes: int = 0
    rendered: dict[str, str] = {}
    result_stored: bool = False
    result_keeper: str = ""
    callbacks: list[CallbackView] = []


class LogLineView(Struct, frozen=True, kw_only=True):
    """One line of a task's output.

    Attributes:
        stream: `stdout`, `stderr` or `log`; `error` for the reason at the end.
        fields: The fields of a structured log line besides its message.
    """

    attempt: int
    time: datetime
    stream: str
    message: str
    fields: dict[str, Any] = {}


class PoolView(Struct, frozen=True, kw_only=True):
    """A pool, which limits how many of the tasks that name it run at once.

    One that is named `tag:<tag>` limits the tasks of all DAGs with a tag, one that is named
    `runs:tag:<tag>` how many runs of these are active.

    Attributes:
        name: Its name.
        slots: How many may run at once; None for a pool without a limit, which only tasks name.
        used: How many are used by tasks that run or are delivered to workers, or by active runs.
        waiting: How many are ready and wait for a slot, or are queued.
        changed_at: When its slots were last set.
        revision: Differs after every change; see `If-Match`.
    """

    name: str
    slots: int | None
    used: int
    waiting: int
    changed_at: datetime | None = None
    revision: str


class RateLimitView(Struct, frozen=True, kw_only=True):
    """A rate limit, which bounds how many of the tasks that name it start in a time.

    Attributes:
        starts: How many may start in `per_seconds`.
        burst: How many may start at once after a pause.
        rate: It for people, as in `100 per minute`.
        available: How many may start now.
        waiting: How many tasks wait that need a start of it.
        next_at: When the next one may start; None when one may now.
        declared_at: Since when it is like this.
    """

    name: str
    starts: int
    per_seconds: float
    burst: int
    rate: str
    available: int
    waiting: int
    next_at: datetime | None = None
    declared_at: datetime


class ClearedTaskView(Struct, frozen=True, kw_only=True):
    """A task instance that was cleared, and the state that it was in."""

    task_id: str
    map_index: int | None = None
    state: str


class ClearedRun(Struct, frozen=True, kw_only=True):
    """The tasks of a run that were cleared, or would be.

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
        consumers: DAGs whose schedule subscribes to it.
        fresh_seconds: It is to have an event at least that often; None if that is not declared.
        stale_alert: The number of the open alert, while it has had none for that long.
        producer_count: How many DAGs declare it as an outlet.
        check_count: How many checks it has.
        held: How many of its events checks hold, counted up to 1,001.
    """

    dataset: str
    name: str | None = None
    group: str | None = None
    extra: dict[str, Any]
    created_at: datetime
    consumers: list[str]
    last_event_id: str | None = None
    last_event_at: datetime | None = None
    fresh_seconds: float | None = None
    stale_alert: int | None = None
    producer_count: int = 0
    check_count: int = 0
    held: int = 0


class EventView(Struct, frozen=True, kw_only=True):
    """A dataset event.

    Attributes:
        time: When it happened, according to its sender.
        recorded_at: When it became durable.
        source: `task`, `api`, `cli`, `bus`.
        run_id, dag_id, task_id, map_index: The task that emitted it, if a task did.
        held: Why no DAG has got it: a check holds it, or a person has discarded it.
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
    held: str | None = None


class PostedEvents(Struct, frozen=True, kw_only=True):
    """The response to posted events.

    Attributes:
        ids: The id of each event, in order.
        duplicates: Positions of events that had been posted before; their ids are the first ones.
    """

    ids: list[str]
    duplicates: list[int] = []


class StartedRun(Struct, frozen=True, kw_only=True):
    """The response to a request to start a run."""

    run_id: str


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A problem document, by RFC 9457.

    Attributes:
        title: The phrase of the status.
        detail: What is wrong and what to do, in one line.
        index: Position of the offending event in a list.
        field: Path of the offending field.
        run_id: The run that has failed.
        task: The first of its tasks that failed.
        error: The error of that task.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    index: int | None = None
    field: str | None = None
    run_id: str | None = None
    task: str | None = None
    error: TaskErrorView | None = None
