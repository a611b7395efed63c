"""The serialised form of a DAG: what the loader stores and the manager decides with.

User code stays in its file: a spec holds shapes, names and policies, never functions or argument
values. A runner that has the file imported finds them again by `dag_id` and `node`.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from msgspec import Struct

from pubsubflow.model.runs.concurrency import DAG, KEY, POOL, Limit
from pubsubflow.model.runs.waits import Waiting
from pubsubflow.model.schedule.conditions import Schedule
from pubsubflow.model.webhooks import HookSpec

LONGEST_CHAIN = 64


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


class RetryPolicy(Struct, frozen=True, omit_defaults=True):
    """How often and after what delay a failed attempt is tried again.

    Attributes:
        retries: Further attempts after the first.
        delay_seconds: Delay before the second attempt.
        backoff: Factor by which the delay grows with every further attempt; 1 keeps it.
        max_delay_seconds: Upper bound of the delay, if any.
        jitter: Share of the delay, 0 to 1, by which chance may lengthen it.
    """

    retries: int = 0
    delay_seconds: float = 0.0
    backoff: float = 1.0
    max_delay_seconds: float | None = None
    jitter: float = 0.0


class Factor(Struct, frozen=True, omit_defaults=True):
    """One mapped argument: a literal of known length, or the result of another task.

    Attributes:
        name: Keyword of the task's function; empty for `expand_kwargs`.
        length: Number of elements, for a literal.
        node: The task whose result is mapped over, otherwise.
    """

    name: str
    length: int | None = None
    node: int | None = None


class TaskSpec(Struct, frozen=True, omit_defaults=True):
    """One node of a DAG.

    Attributes:
        node: Position in `DagSpec.tasks`, from 0, in topological order: upstream nodes are lower.
        task_id: The name that users see, unique in its DAG.
        kind: `async` runs beside others on a loop, `sync` has a process to itself while it runs,
            `empty` has nothing to run and is finished by the manager.
        role: `branch` returns the task ids to follow, `short_circuit` skips what follows on a
            false value, `teardown` does not decide the run's state.
        upstream: Nodes that must be done first.
        inputs: Nodes whose results are arguments (a part of `upstream`); the result of a mapped
            node is the list of its results in map order.
        factors: What the task is mapped over; its instances are the product, last factor fastest.
        outlets: URIs of the datasets that get an event when the task succeeds.
        outlet_patterns: Patterns of further datasets that the task may emit events of.
        queue: Name of the workers' queue.
        pool: Of which it needs a slot while it runs.
        priority: Who waits for a slot with a higher one is served first.
        concurrency_key: Of the tasks with the same one, in whatever DAG, one runs at a time.
        start: What must happen after the task could start and before anything of it runs, under
            the key `waits.START`, with relative times. Of kind `empty`, the task's result is the
            payload of what happened.
    """

    node: int
    task_id: str
    kind: Literal["async", "sync", "empty"] = "sync"
    role: Literal["task", "branch", "short_circuit", "setup", "teardown"] = "task"
    upstream: tuple[int, ...] = ()
    inputs: tuple[int, ...] = ()
    factors: tuple[Factor, ...] = ()
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
    start: Waiting | None = None

    @property
    def mapped(self) -> bool:
        """Whether the task has one instance per element of its factors."""
        return bool(self.factors)


class DagSpec(Struct, frozen=True, omit_defaults=True):
    """One version of a DAG.

    Attributes:
        file: Path of its file, relative to the DAGs folder, with `/`.
        source: Content hash of the file and of the modules beside it that it imports.
        schedule: When its runs start; None when only asked for.
        subscribe_from: From where on a new subscription takes events: `now`, `earliest`, the id of
            an event, or a moment in ISO 8601.
        params: Defaults of the run's params, JSON values.
        params_from: Param → CEL expression over the consumed events.
        params_schema: JSON Schema of the params when they were declared as a type, else None.
        max_active_tasks: How many of its tasks run at once, all runs together.
        timeout_seconds: A run that lasts longer is failed.
    """

    dag_id: str
    file: str
    source: str
    tasks: tuple[TaskSpec, ...]
    schedule: Schedule | None = None
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


class Plan:
    """What follows from a DAG's spec alone, worked out once a version.

    Attributes:
        spec: The version.
        downstream: Per node, the nodes that have it upstream.
        leaves: The nodes that decide the run's state: nothing but a teardown follows them.
        chains: Per node, the nodes that a runner may go straight on with after it succeeded: each
            is the only task that the one before leads to, waits for nothing else and is of the
            same kind and queue; so whoever finished the one before starts it without asking.
        limits: Per node, what its tasks need a slot of, in order; empty when no task needs one.
    """

    def __init__(self, spec: DagSpec) -> None:
        self.spec = spec
        found: list[list[int]] = [[] for _ in spec.tasks]
        for task in spec.tasks:
            for node in task.upstream:
                found[node].append(task.node)
        self.downstream = tuple(map(tuple, found))
        lasting = [task for task in spec.tasks if task.role != "teardown"]
        leads_on = {node for task in lasting for node in task.upstream}
        self.leaves = tuple(task.node for task in lasting if task.node not in leads_on)
        self.chains = self._chains()
        limits = tuple(_limits(spec, task) for task in spec.tasks)
        self.limits = limits if any(limits) else ()

    def _chains(self) -> tuple[tuple[int, ...], ...]:
        chains: dict[int, tuple[int, ...]] = {}
        for task in reversed(self.spec.tasks):
            after = self.downstream[task.node]
            chains[task.node] = ()
            bounded = self.spec.max_active_tasks is not None
            if len(after) == 1 and not bounded and _continues(task, self.spec.tasks[after[0]]):
                chains[task.node] = (after[0], *chains[after[0]])[:LONGEST_CHAIN]
        return tuple(chains[node] for node in range(len(self.spec.tasks)))


def _limits(spec: DagSpec, task: TaskSpec) -> tuple[Limit, ...]:
    found = []
    if spec.max_active_tasks is not None:
        found.append(Limit(f"{DAG}{spec.dag_id}", spec.max_active_tasks))
    if task.pool is not None:
        found.append(Limit(f"{POOL}{task.pool}"))
    if task.concurrency_key is not None:
        found.append(Limit(f"{KEY}{task.concurrency_key}", 1))
    return tuple(sorted(found))


def _continues(task: TaskSpec, follower: TaskSpec) -> bool:
    return (
        task.role == "task"
        and follower.start is None
        and not (task.mapped or follower.mapped)
        and follower.upstream == (task.node,)
        and follower.kind == task.kind
        and follower.queue == task.queue
        and follower.pool is None
        and follower.concurrency_key is None
        and follower.trigger_rule
        in (TriggerRule.ALL_SUCCESS, TriggerRule.ALL_DONE, TriggerRule.NONE_FAILED)
    )


class DatasetSpec(Struct, frozen=True, omit_defaults=True):
    """A dataset as a file declares it.

    Attributes:
        watch_name: Entry point of the trigger whose events are the dataset's.
        watch_data: That trigger, encoded.
    """

    uri: str
    name: str | None = None
    group: str | None = None
    extra: dict[str, Any] = {}
    watch_name: str | None = None
    watch_data: bytes = b""


class SourceBundle(Struct, frozen=True):
    """A DAG file with the modules beside it that it imports; it travels by content hash.

    Attributes:
        hash: SHA-256 over the sorted paths and contents, hexadecimal.
        file: The DAG file's path relative to the DAGs folder.
        root: The DAGs folder where it was read; used as import path where it exists.
        files: Path relative to `root` → text. Holds `file` itself.
    """

    hash: str
    file: str
    root: str
    files: dict[str, str]


class LoadedFile(Struct, frozen=True):
    """What importing one file gave: DAGs, or an error that users see.

    Attributes:
        error: One line; None when the import worked.
        traceback: The user's part of the traceback, if any.
    """

    file: str
    bundle: SourceBundle
    dags: tuple[DagSpec, ...] = ()
    datasets: tuple[DatasetSpec, ...] = ()
    error: str | None = None
    traceback: str | None = None
    seconds: float = 0.0
    hooks: tuple[HookSpec, ...] = ()
