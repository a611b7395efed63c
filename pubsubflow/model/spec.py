"""DAG spec: the serialised form of a DAG, which the loader stores and the manager decides with.

User code stays in its file: a spec holds structure, names and policies, never functions or argument
values. A runner that has imported the file finds these by `dag_id` and `node`.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from msgspec import Struct

from pubsubflow.model.alerts import DeadlineSpec, FreshSpec
from pubsubflow.model.callbacks import Callbacks
from pubsubflow.model.limits.keys import FurtherKey, KeyPart
from pubsubflow.model.limits.rates import RateLimitSpec
from pubsubflow.model.schedule.conditions import ScheduleSpec
from pubsubflow.model.webhooks import WebhookSpec
from pubsubflow.model.wire.executor_spec import ExecutorSpec
from pubsubflow.model.wire.task_resources import ResourcesSpec
from pubsubflow.model.wire.waits import WaitSet


class TriggerRule(StrEnum):
    """When a task may start, given the states of its upstream tasks."""

    ALL_SUCCESS = "all_success"
    ALL_FAILED = "all_failed"
    ALL_DONE = "all_done"
    ONE_SUCCESS = "one_success"
    ONE_FAILED = "one_failed"
    NONE_FAILED = "none_failed"
    NONE_FAILED_MIN_ONE_SUCCESS = "none_failed_min_one_success"
    ALWAYS = "always"
    ALL_SKIPPED = "all_skipped"
    NONE_SKIPPED = "none_skipped"
    ONE_DONE = "one_done"
    ALL_DONE_MIN_ONE_SUCCESS = "all_done_min_one_success"
    ALL_DONE_SETUP_SUCCESS = "all_done_setup_success"


class RetentionSpec(Struct, frozen=True, omit_defaults=True):
    """How long runs of a DAG are kept after their end, where that differs from the usual.

    Attributes:
        runs_seconds: The runs, with all that belongs to them.
        runs_count: How many runs.
        logs_seconds: Output of tasks.
        results_seconds: Results of tasks.
    """

    runs_seconds: float | None = None
    runs_count: int | None = None
    logs_seconds: float | None = None
    results_seconds: float | None = None


class RetryPolicy(Struct, frozen=True, omit_defaults=True):
    """The number and the delays of further attempts.

    Attributes:
        retries: Further attempts after the first.
        delay_seconds: Delay before the second attempt.
        backoff: Factor by which the delay grows with every further attempt; 1 keeps it.
        max_delay_seconds: Upper bound of the delay, if any.
        jitter: Share of the delay, 0 to 1, by which it is lengthened at random.
        on: Qualified names of the exceptions after which there is a further attempt; all if empty.
            The runner, which has the classes, decides.
        never: Qualified names of those after which there is none.
    """

    retries: int = 0
    delay_seconds: float = 0.0
    backoff: float = 1.0
    max_delay_seconds: float | None = None
    jitter: float = 0.0
    on: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


class PollSpec(Struct, frozen=True, omit_defaults=True):
    """How often a polling sensor looks.

    Attributes:
        every_seconds: Between two looks.
        soft_fail: It is skipped, rather than failed, when its timeout is over.
        backoff: Factor by which the time between looks grows with every look; 1 keeps it.
        max_every_seconds: Upper bound of that time.
    """

    every_seconds: float
    soft_fail: bool = False
    backoff: float = 1.0
    max_every_seconds: float | None = None


class MappedArgument(Struct, frozen=True, omit_defaults=True):
    """One mapped argument: a literal of known length, or the result of another task.

    Attributes:
        name: Keyword of the task's function; empty for `expand_kwargs`.
        length: Number of elements, for a literal.
        node: The task whose result is mapped over, if it is not a literal.
        elements: The digests of a literal's elements, see `model.source.elements`.
        unused: The task does not take the element, or finds it by itself.
        joined: How several arguments count as one: the length is that of the shortest one (`zip`),
            of the longest one (`longest`), or their sum (`concat`).
        parts: These arguments.
    """

    name: str
    length: int | None = None
    node: int | None = None
    elements: str | None = None
    unused: bool = False
    joined: Literal["", "zip", "longest", "concat"] = ""
    parts: tuple["MappedArgument", ...] = ()

    def sources(self) -> tuple[int, ...]:
        """Return the nodes whose results decide its length."""
        if self.node is not None:
            return (self.node,)
        return tuple(node for part in self.parts for node in part.sources())


class TaskSpec(Struct, frozen=True, omit_defaults=True):
    """One node of a DAG.

    Attributes:
        node: Position in `DagSpec.tasks`, from 0, in topological order: upstream nodes are lower.
        task_id: Its public name, unique in its DAG.
        kind: `async` shares an event loop with others, `sync` has a process to itself while it
            runs, `empty` is finished by the manager.
        role: `branch` returns the task ids to follow, `short_circuit` skips what follows on a
            false value, `teardown` does not decide the run's state.
        upstream: Nodes that run first.
        inputs: Nodes whose results are arguments (a part of `upstream`); the result of a mapped
            node is the list of its results in map order.
        mapped_arguments: The arguments that the task is mapped over; its instances are their
            product, the last argument runs fastest.
        outlets: URIs of the datasets that get an event when the task succeeds.
        outlet_patterns: Patterns of further datasets that the task may emit events of.
        queue: Name of the workers' queue; see `executor_queue`.
        pool: The pool of which it needs slots while it runs.
        priority: Of the tasks that wait for a slot, the highest one is first.
        concurrency_key: Of all tasks with the same one, in any DAG, `concurrency_limit` run at a
            time.
        start_wait: The wait after the task is ready and before any of its code runs, under the key
            `waits.START`, with relative times. Of kind `empty`, the task's result is the payload
            of the wait's completion.
        groups: The groups that it is in, the outermost first.
        fails_run: Of a teardown: its failure fails the run.
        depends_on_past: It waits until it has succeeded or was skipped in the previous run.
        wait_for_downstream: It also waits for the tasks right after it in the previous run.
        pool_slots: How many slots of its pool it takes.
        concurrency_limit: How many tasks with its concurrency key run at once.
        key_parts: Its concurrency key, when that follows from the run.
        rate_limit: How often it and others under the same name may start.
        poll: How often it looks, if it is a polling sensor.
        resources: What it may use; a worker gives it a process of its own then.
        callbacks: What is called after its outcomes.
        map_group: The mapped group that it is in; its `mapped_arguments` are those of the group.
        executor: Where its attempts run, if it says so.
        further_keys: Keys beside its concurrency key: it needs a slot of each.
        keeps_slots: It has its slots while it waits, too, once it has begun.
    """

    node: int
    task_id: str
    kind: Literal["async", "sync", "empty"] = "sync"
    role: Literal["task", "branch", "short_circuit", "setup", "teardown"] = "task"
    upstream: tuple[int, ...] = ()
    inputs: tuple[int, ...] = ()
    mapped_arguments: tuple[MappedArgument, ...] = ()
    trigger_rule: TriggerRule = TriggerRule.ALL_SUCCESS
    retry: RetryPolicy = RetryPolicy()
    timeout_seconds: float | None = None
    outlets: tuple[str, ...] = ()
    outlet_patterns: tuple[str, ...] = ()
    inlets: tuple[str, ...] = ()
    queue: str = "default"
    pool: str | None = None
    priority: int = 0
    concurrency_key: str | None = None
    operator: str = "task"
    doc: str | None = None
    line: int | None = None
    start_wait: WaitSet | None = None
    groups: tuple[str, ...] = ()
    fails_run: bool = False
    depends_on_past: bool = False
    wait_for_downstream: bool = False
    pool_slots: int = 1
    concurrency_limit: int = 1
    key_parts: tuple[KeyPart, ...] = ()
    rate_limit: RateLimitSpec | None = None
    poll: PollSpec | None = None
    resources: ResourcesSpec | None = None
    callbacks: Callbacks = {}
    map_group: str = ""
    executor: ExecutorSpec | None = None
    further_keys: tuple[FurtherKey, ...] = ()
    keeps_slots: bool = False

    @property
    def mapped(self) -> bool:
        """Whether the task has one instance per element of its mapped arguments."""
        return bool(self.mapped_arguments)

    @property
    def has_rendered_keys(self) -> bool:
        """Whether its concurrency keys are rendered for each run."""
        return bool(self.key_parts or self.further_keys)

    def shares_index(self, other: "TaskSpec") -> bool:
        """Return whether it and another task are in one mapped group: index by index they match."""
        return bool(self.map_group) and self.map_group == other.map_group


class DagSpec(Struct, frozen=True, omit_defaults=True):
    """One version of a DAG.

    Attributes:
        file: Path of its file, relative to the DAGs folder, with `/`.
        source: Hash of all that the import of its file read of the bundle.
        schedule: The schedule of its runs; None for manual runs only.
        subscribe_from: The position from which a new subscription takes events: `now`, `earliest`,
            the id of an event, or a moment in ISO 8601.
        params: Defaults of the run's params, JSON values.
        params_from: Param → CEL expression over the consumed events.
        params_schema: JSON Schema of the params when they were declared as a type, else None.
        max_active_tasks: The number of its tasks that run at once, over all runs.
        timeout_seconds: A run that lasts longer fails.
        retention: How long its runs are kept; None for the usual time.
        variables: The variables that its file used when it was loaded: name → its value, in a
            tuple that is empty for one that is not set.
        priority: Added to the priority of each of its tasks.
        result: The task whose result answers calls of the DAG; None if it cannot be called.
        callbacks: What is called after the outcomes of its runs.
        presets: Name → params that people may start a run with by that name.
        deadlines: The moments by which its runs are to have ended.
        by_instance: Trigger rules count the instances of mapped tasks, as in Airflow, and a task
            that is mapped over what did not succeed could not start.
        interval_dates: The date of a run by time, as Airflow's tasks see it, is the tick before its
            own: the start of its data interval.
        fail_fast: The first failure of a run stops its other tasks; see `runs.rules.failing_fast`.
    """

    dag_id: str
    file: str
    source: str
    tasks: tuple[TaskSpec, ...]
    schedule: ScheduleSpec | None = None
    subscribe_from: str = "now"
    start: datetime | None = None
    end: datetime | None = None
    catchup: bool = False
    params: dict[str, Any] = {}
    params_schema: dict[str, Any] | None = None
    params_from: dict[str, str] = {}
    max_active_runs: int = 16
    max_active_tasks: int | None = None
    timeout_seconds: float | None = None
    tags: tuple[str, ...] = ()
    owner: str | None = None
    description: str | None = None
    on_pause: Literal["hold", "drop"] = "hold"
    line: int | None = None
    retention: RetentionSpec | None = None
    priority: int = 0
    variables: dict[str, tuple[Any, ...]] = {}
    result: str | None = None
    callbacks: Callbacks = {}
    presets: dict[str, dict[str, Any]] = {}
    deadlines: tuple[DeadlineSpec, ...] = ()
    by_instance: bool = False
    interval_dates: bool = False
    fail_fast: bool = False


class DatasetSpec(Struct, frozen=True, omit_defaults=True):
    """A dataset as a file declares it.

    Attributes:
        watch_name: Entry point of the trigger whose events become the dataset's.
        watch_data: That trigger, encoded.
        fresh: How often it is to have an event, if that is declared.
    """

    uri: str
    name: str | None = None
    group: str | None = None
    extra: dict[str, Any] = {}
    watch_name: str | None = None
    watch_data: bytes = b""
    fresh: FreshSpec | None = None


class LoadedFile(Struct, frozen=True):
    """The result of importing one file: DAGs, or an error for users.

    Attributes:
        bundle: Hash of the bundle in which it was imported; empty where there is none.
        error: One line; None when the import worked.
        traceback: The user's part of the traceback, if any.
        warnings: What works and is dangerous, or has no meaning here, a line each.
        source: Hash of what the import read.
    """

    file: str
    bundle: str = ""
    dags: tuple[DagSpec, ...] = ()
    datasets: tuple[DatasetSpec, ...] = ()
    error: str | None = None
    traceback: str | None = None
    seconds: float = 0.0
    hooks: tuple[WebhookSpec, ...] = ()
    warnings: tuple[str, ...] = ()
    source: str = ""

    @property
    def calls_code(self) -> bool:
        """Whether code of the file is called after its import: by runs, or by callbacks."""
        return bool(self.dags) or any(each.fresh is not None for each in self.datasets)
