"""The structure of an Airflow DAG: plain values, made inside and turned into a DAG outside."""

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct


class AssetStructure(Struct, frozen=True, omit_defaults=True):
    """An asset, or what stands for one.

    Attributes:
        kind: `asset`, `alias`, `name` or `uri` (a reference by it).
        uri: Empty for an alias, and for a reference by name.
    """

    name: str
    uri: str = ""
    kind: str = "asset"


class MapFactor(Struct, frozen=True, omit_defaults=True):
    """What one mapped argument says about the number of instances.

    Attributes:
        name: Keyword of the operator; empty for `expand_kwargs`.
        length: Of a literal.
        task_id: The task whose result is mapped over, if it is not a literal.
        combined: `zip`, `longest` (with a fill value) or `concat` of several lists and results.
        parts: Those.
    """

    name: str
    length: int | None = None
    task_id: str | None = None
    combined: Literal["", "zip", "longest", "concat"] = ""
    parts: tuple["MapFactor", ...] = ()


class TaskStructure(Struct, frozen=True, omit_defaults=True):
    """One task; durations in seconds.

    Attributes:
        kind: `empty` for one with nothing to run, else `task`.
        role: As in `TaskSpec`; a short circuit of which only the direct successors are skipped is a
            `branch`.
        groups: The groups that it is in, the outermost first.
        map_group: The mapped group that it is in; `factors` are those of the group then.
        limit_all: How many instances of the task run at once, over all runs.
        limit_run: Likewise in one run.
        reschedules: Whether it is a sensor that is rescheduled between its looks.
        priority: Its weight, with those that its rule adds.
        callbacks: The names of its callbacks, which the SDK calls.
    """

    task_id: str
    operator: str
    kind: str = "task"
    role: str = "task"
    upstream: tuple[str, ...] = ()
    trigger_rule: str = "all_success"
    retries: int = 0
    retry_delay: float = 0.0
    retry_backoff: float = 1.0
    max_retry_delay: float | None = None
    timeout: float | None = None
    outlets: tuple[AssetStructure, ...] = ()
    inlets: tuple[AssetStructure, ...] = ()
    queue: str = "default"
    pool: str | None = None
    pool_slots: int = 1
    priority: int = 1
    factors: tuple[MapFactor, ...] = ()
    groups: tuple[str, ...] = ()
    map_group: str = ""
    depends_on_past: bool = False
    wait_for_downstream: bool = False
    fails_run: bool = False
    limit_all: int | None = None
    limit_run: int | None = None
    reschedules: bool = False
    callbacks: tuple[str, ...] = ()
    doc: str | None = None


class ParamStructure(Struct, frozen=True, omit_defaults=True):
    """A param: its default, if it has one, and its JSON schema."""

    value: Any = None
    required: bool = False
    schema: dict[str, Any] = {}


class DeadlineStructure(Struct, frozen=True, omit_defaults=True):
    """A deadline of a DAG's runs; see `DeadlineSpec`.

    Attributes:
        index: Which of the DAG's deadlines it is.
        name: Of its callback.
    """

    index: int
    after: float
    since: str
    name: str


class DagStructure(Struct, frozen=True, omit_defaults=True):
    """A DAG as its file makes it.

    Attributes:
        tasks: In topological order.
        schedule: None for manual runs; else one of `{"cron", "tz"}`, `{"every"}`, `{"once"}`,
            `{"continuous"}`, `{"asset"}`, `{"all": […]}`, `{"any": […]}`, `{"custom"}`,
            `{"partitioned": …, "by", "by_asset"}`; times have `"data_interval"` when a run's
            logical date is the tick before.
        paused: Whether it is paused when it is loaded first.
        notes: What of it has no counterpart here yet, a line each.
        calls: Which callbacks it has: `on_success`, `on_failure`.
        max_active_tasks: How many of its tasks run at once in one run, if its file says so.
        refused: Why it cannot be run here; empty if it can.
        fail_fast: Whether the first failure of a run stops its other tasks.
    """

    dag_id: str
    tasks: tuple[TaskStructure, ...]
    schedule: dict[str, Any] | None = None
    start: datetime | None = None
    end: datetime | None = None
    catchup: bool = False
    params: dict[str, ParamStructure] = {}
    max_active_runs: int = 16
    timeout: float | None = None
    tags: tuple[str, ...] = ()
    owner: str | None = None
    description: str | None = None
    paused: bool = False
    notes: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    max_active_tasks: int | None = None
    deadlines: tuple[DeadlineStructure, ...] = ()
    refused: str = ""
    fail_fast: bool = False


class LoadedStructure(Struct, frozen=True, omit_defaults=True, tag="loaded"):
    """What the import of a file has made.

    Attributes:
        notes: What the legacy layer has replaced, a line each.
        error: One line, when the import failed.
        reads: Files of the folder that it has imported, relative to that.
    """

    dags: tuple[DagStructure, ...] = ()
    notes: tuple[str, ...] = ()
    error: str | None = None
    traceback: str = ""
    reads: tuple[str, ...] = ()
