"""DAGs made of the structures of Airflow's: real DAGs, whose tasks run in the other interpreter."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from pubsubflow.airflow.outside.assets import dataset_uri, known_assets
from pubsubflow.airflow.outside.attempt import AirflowTask, run_task
from pubsubflow.airflow.outside.callbacks import RunCallback
from pubsubflow.airflow.outside.partitions import partitioned_schedule
from pubsubflow.airflow.outside.place import BundlePlace
from pubsubflow.airflow.outside.triggers import AirflowTrigger
from pubsubflow.airflow.structure import (
    AssetStructure,
    DagStructure,
    DeadlineStructure,
    MapFactor,
    TaskStructure,
)
from pubsubflow.authoring.alerts.deadlines import Deadline
from pubsubflow.authoring.dag import DAG
from pubsubflow.authoring.datasets import Dataset
from pubsubflow.authoring.params_mapping import DeclaredParams
from pubsubflow.authoring.schedules.expressions import AllSides, AnySide, Schedule
from pubsubflow.authoring.schedules.timetables import (
    Cron,
    Every,
    TimeSchedule,
    written_schedule,
)
from pubsubflow.authoring.tasks.body import Binding, Kind
from pubsubflow.authoring.tasks.graph import Node, Reference
from pubsubflow.authoring.tasks.limits import MAX_PRIORITY
from pubsubflow.authoring.tasks.mapped.group_mapping import (
    ExpandInput,
    GroupMapping,
    JoinedElements,
)
from pubsubflow.authoring.tasks.options import Outlets, TaskOptions, check_id
from pubsubflow.errors import DefinitionError
from pubsubflow.model.schedule.timetable import TableSpec
from pubsubflow.model.spec import TriggerRule
from pubsubflow.model.wire.executor_spec import bundle_queue
from pubsubflow.model.wire.waits import WaitSet

_OLD_RULES = {"dummy": "always", "none_failed_or_skipped": "none_failed_min_one_success"}
_RUN = "{{ run.run_id }}"
_ROLES = {"branch", "short_circuit", "setup", "teardown"}


class AirflowBody:
    """The body of a task of Airflow's: its attempts run in the bundle's interpreter.

    Args:
        task: The task.
    """

    def __init__(self, task: AirflowTask) -> None:
        self._task = task

    @property
    def bundle(self) -> str:
        """The name of its bundle."""
        return self._task.place.bundle

    @property
    def kind(self) -> Kind:
        """`async`: here it only talks to the process that runs it."""
        return "empty" if self._task.structure.kind == "empty" else "async"

    @property
    def operator(self) -> str:
        """The name of the operator's class."""
        return self._task.structure.operator

    def arguments(self) -> list[object]:
        """Return nothing: arguments are Airflow's."""
        return []

    @property
    def starts_with_wait(self) -> bool:
        """False: it runs at once."""
        return False

    def start_wait(self, timeout: float | None) -> WaitSet | None:  # noqa: ARG002 - see sensors
        """Return None: it runs at once."""
        return None

    def bind(self, binding: Binding) -> Callable[[], Any]:
        """Return the call that runs an attempt."""
        return lambda: run_task(binding.context, self._task)


def build_dag(found: DagStructure, place: BundlePlace) -> DAG:
    """Return the DAG of a structure.

    Args:
        found: The structure.
        place: Where its file is.

    Raises:
        DefinitionError: Something of it cannot be run here; the message says what.
    """
    if found.refused:
        raise DefinitionError(found.refused, dag_id=found.dag_id)
    try:
        return _dag(found, place)
    except DefinitionError as error:
        # It names a line of ours: those of the file are known in the other interpreter alone.
        raise DefinitionError(error.message, dag_id=found.dag_id, task_id=error.task_id) from error


def _dag(found: DagStructure, place: BundlePlace) -> DAG:
    options: dict[str, Any] = {
        "schedule": _schedule(found.schedule, place),
        "start": found.start,
        "end": found.end,
        "catchup": found.catchup,
        "max_active_runs": found.max_active_runs or None,
        "timeout": found.timeout,
        "tags": list(found.tags),
        "owner": found.owner,
        "description": found.description,
    }
    last = found.tasks[-1].task_id if found.tasks else ""
    options |= {kind: RunCallback(place, kind, last) for kind in found.calls if last}
    options["deadlines"] = [_deadline(each, place, last) for each in found.deadlines if last]
    if found.schedule == {"continuous": True}:
        options["max_active_runs"] = 1
    dag = DAG(found.dag_id, **{name: each for name, each in options.items() if each})
    dag.params = _params(found)
    dag.by_instance = True
    dag.fail_fast = found.fail_fast
    dag.interval_dates = bool((found.schedule or {}).get("data_interval"))
    downstream: dict[str, list[str]] = {}
    for task in found.tasks:
        for before in task.upstream:
            downstream.setdefault(before, []).append(task.task_id)
    assets = known_assets(found)
    mappings: dict[str, GroupMapping] = {}
    for task in found.tasks:
        following = tuple(downstream.get(task.task_id, ()))
        body = AirflowBody(AirflowTask(task, place, following, assets))
        _add(dag, task, body, mappings, found.max_active_tasks)
    return dag


def _deadline(found: DeadlineStructure, place: BundlePlace, last: str) -> Deadline:
    call = RunCallback(place, f"deadline:{found.index}", last, found.name)
    fixed = found.since not in ("queued", "logical_time")
    since = datetime.fromisoformat(found.since) if fixed else found.since
    return Deadline(after=timedelta(seconds=found.after), since=since, notify=call)


def _params(found: DagStructure) -> DeclaredParams:
    """Return the params: a run may have others, too, which are in its `conf` as in Airflow."""
    required = tuple(name for name, param in found.params.items() if param.required)
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: _checked(param.schema) for name, param in found.params.items()},
        "additionalProperties": True,
    }
    if required:
        schema["required"] = list(required)
    defaults = {name: each.value for name, each in found.params.items() if not each.required}
    return DeclaredParams(defaults, schema, None, required)


def _checked(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a param's schema without a format that Airflow checks otherwise.

    A time of day has no zone there. Airflow checks the values again when tasks begin.
    """
    if schema.get("format") != "time":
        return schema
    return {name: each for name, each in schema.items() if name != "format"}


def _add(
    dag: DAG,
    task: TaskStructure,
    body: AirflowBody,
    mappings: dict[str, GroupMapping],
    most: int | None,
) -> None:
    """Add a task to the DAG, after those before it."""
    factors = tuple(_expanded(dag, factor) for factor in task.factors)
    node = Node(
        dag,
        check_id(task.task_id, "task_id"),
        body,
        _options(dag, task, body.bundle, most),
        role=task.role if task.role in _ROLES else "task",  # type: ignore[arg-type]
        expand_inputs=() if task.map_group else factors,
    )
    node.groups = task.groups
    if task.map_group:
        mapping = mappings.setdefault(task.map_group, GroupMapping(task.map_group, factors))
        node.mapping = mapping
    for before in task.upstream:
        node.run_after(dag.nodes[before])
    node.fails_run = task.fails_run


def _expanded(dag: DAG, factor: MapFactor) -> ExpandInput:
    """Return an input of which only the number of elements counts: the SDK finds them inside."""
    name = factor.name or "kwargs"
    values: Any = list(range(factor.length or 0))
    if factor.combined:
        parts = tuple(_expanded(dag, part) for part in factor.parts)
        values = JoinedElements(factor.combined, parts)
    elif factor.task_id is not None:
        values = Reference(dag.nodes[factor.task_id])
    return ExpandInput(name, values, counted=True)


def _limit(dag: DAG, task: TaskStructure, most: int | None) -> dict[str, Any]:
    """Return the limits of a task: over all runs, in its run, and of all tasks of its run."""
    place = f"airflow/{dag.dag_id}"
    keys = {
        f"{place}/{task.task_id}": task.limit_all,
        f"{place}/{task.task_id}/{_RUN}": task.limit_run,
        f"{place}/{_RUN}": most,
    }
    found = [(key, limit) for key, limit in keys.items() if limit]
    if not found:
        return {}
    (key, limit), *further = found
    return {
        "concurrency_key": key,
        "concurrency_limit": limit,
        "further_keys": tuple(further),
        # A deferred task counts for limits of its own, which one that is rescheduled does not.
        "keeps_slots": bool(task.limit_all or task.limit_run) and not task.reschedules,
    }


def _options(dag: DAG, task: TaskStructure, bundle: str, most: int | None) -> TaskOptions:
    rule = _OLD_RULES.get(task.trigger_rule, task.trigger_rule)
    limit = _limit(dag, task, most)
    plain = task.queue.replace("-", "").replace("_", "").isalnum()
    return TaskOptions(
        outlets=Outlets(_uris(task.outlets)),
        inlets=_uris(task.inlets),
        retries=task.retries,
        retry_delay=task.retry_delay,
        retry_backoff=task.retry_backoff,
        max_retry_delay=task.max_retry_delay,
        trigger_rule=TriggerRule(rule),
        queue=bundle_queue(task.queue if plain else "default", bundle),
        pool=task.pool,
        pool_slots=task.pool_slots if task.pool else 1,
        priority=max(-MAX_PRIORITY, min(task.priority, MAX_PRIORITY)),
        on_failure_fail_dagrun=task.fails_run,
        depends_on_past=task.depends_on_past and not task.map_group,
        wait_for_downstream=task.wait_for_downstream and not task.map_group,
        doc=task.doc,
        **limit,
    )


def _uris(assets: tuple[AssetStructure, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(dataset_uri(each) for each in assets if each.kind != "alias"))


def _schedule(found: dict[str, Any] | None, place: BundlePlace) -> Schedule | str | None:
    """Return the schedule of a structure.

    Raises:
        DefinitionError: It is a timetable that only Airflow can compute.
    """
    if found is None:
        return None
    if found.get("once") or found.get("continuous"):
        return "@once" if found.get("once") else "@continuous"
    if "partitioned" in found:
        return partitioned_schedule(_condition(found["partitioned"], place), found)
    return _condition(found, place)


def _condition(found: dict[str, Any], place: BundlePlace) -> Schedule:
    for sign, kind in (("any", AnySide), ("all", AllSides)):
        if sign in found:
            sides = [_condition(side, place) for side in found[sign]]
            return sides[0] if len(sides) == 1 else kind(*sides)
    if "cron" in found:
        return _cron(found["cron"], found["tz"])
    if "every" in found:
        return Every(found["every"])
    if "asset" in found:
        asset = AssetStructure(**found["asset"])
        watch = _watch(found.get("watch"), place)
        return Dataset(dataset_uri(asset), name=asset.name or None, watch=watch)
    if "ticks" in found:
        return Ticks(found["name"], tuple(found["ticks"]), found["renew_at"])
    what = found.get("custom") or next(iter(found), "schedule")
    reason = found.get("reason", "its ticks are not known ahead")
    remedy = found.get("remedy", "write a cron, a timedelta or assets as the schedule")
    raise DefinitionError(f"the timetable {what} is not supported, as {reason}: {remedy}")


def _watch(found: dict[str, Any] | None, place: BundlePlace) -> AirflowTrigger | None:
    if found is None:
        return None
    return AirflowTrigger(
        bundle=place.bundle,
        root=place.root,
        classpath=found["classpath"],
        kwargs=found["kwargs"],
        watch=True,
    )


class Ticks(TimeSchedule):
    """A schedule of ticks that Airflow has computed.

    Args:
        name: What it is; the same name is the same timetable with further ticks.
        ticks: Seconds since 1970, rising.
        renew_at: When there are further ones to compute.
    """

    __slots__ = ()

    def __init__(self, name: str, ticks: tuple[int, ...], renew_at: int | None) -> None:
        self.timetable = TableSpec(name, ticks, renew_at)

    def __repr__(self) -> str:
        return f"Ticks({self.timetable!r})"


def _cron(expression: str, zone: str) -> Schedule:
    if expression.startswith("@"):
        return written_schedule(expression)
    return Cron(expression, zone)
