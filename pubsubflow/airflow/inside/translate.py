"""Translation of an Airflow DAG object into its structure."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from graphlib import TopologicalSorter
from typing import Any, Literal

import msgspec
from airflow.configuration import conf
from airflow.sdk.bases.skipmixin import SkipMixin as SdkSkipMixin
from airflow.sdk.definitions import xcom_arg
from airflow.sdk.definitions._internal.expandinput import ListOfDictsExpandInput
from airflow.sdk.definitions._internal.types import is_arg_set

from pubsubflow.airflow.inside.loading.assets import asset_of
from pubsubflow.airflow.inside.loading.deadlines import deadlines_of
from pubsubflow.airflow.inside.loading.schedules import schedule_of
from pubsubflow.airflow.inside.loading.weights import weight_of
from pubsubflow.airflow.structure import (
    AssetStructure,
    DagStructure,
    MapFactor,
    ParamStructure,
    TaskStructure,
)

_DEFAULT_POOL = "default_pool"
_DEFAULT_QUEUE = "default"
_LONGEST_DELAY_SECONDS = 86_400.0
_CALLBACKS = ("on_execute", "on_failure", "on_success", "on_retry", "on_skipped")
_RUN_CALLBACKS = ("on_success", "on_failure")
_NOT_YET = {
    "executor_config": "executor_config is not used",
}
_SKIP_MIXINS = frozenset({"SkipMixin", "BranchMixIn"})


class Notes:
    """Collects what has no counterpart, each once."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}

    def add(self, line: str) -> None:
        """Add a line."""
        self._lines[line] = None

    def lines(self) -> tuple[str, ...]:
        """Return all lines in the order in which they came."""
        return tuple(self._lines)


def translate(dag: Any) -> DagStructure:
    """Return the structure of a DAG."""
    notes = Notes()
    order = _ordered(dag)
    tasks = tuple(_task(task, notes) for task in order)
    if getattr(dag, "access_control", None):
        notes.add("access_control of the DAG is not kept")
    deadlines = deadlines_of(dag, notes)
    text = dag.description or next(iter((dag.doc_md or "").strip().splitlines()), "")
    owners = sorted({task.owner for task in order if task.owner})
    return DagStructure(
        dag_id=dag.dag_id,
        tasks=tasks,
        schedule=schedule_of(dag, notes),
        start=_moment(dag.start_date),
        end=_moment(dag.end_date),
        catchup=bool(dag.catchup),
        params={name: _param(dag.params.get_param(name)) for name in dag.params},
        max_active_runs=dag.max_active_runs or 0,
        timeout=_seconds(dag.dagrun_timeout),
        tags=tuple(sorted(dag.tags)),
        owner=",".join(owners) or None,
        description=text or None,
        paused=bool(dag.is_paused_upon_creation),
        notes=notes.lines(),
        calls=tuple(name for name in _RUN_CALLBACKS if getattr(dag, f"{name}_callback", None)),
        max_active_tasks=_most_tasks(dag),
        deadlines=deadlines,
        refused=_refusal(order),
        fail_fast=bool(dag.fail_fast),
    )


def _most_tasks(dag: Any) -> int | None:
    """Return how many tasks run at once in a run; None where that is only the usual number."""
    found = dag.max_active_tasks
    usual = conf.getint("core", "max_active_tasks_per_dag", fallback=16)
    return None if not found or found == usual else int(found)


def _refusal(tasks: Iterable[Any]) -> str:
    """Return why a DAG cannot be run: what has to run under an account must not under another."""
    for task in tasks:
        user = _given(task, "run_as_user")
        if user:
            return (
                f"task {task.task_id!r} has run_as_user={user!r}, and all tasks of a daemon run "
                "under one account: leave it out, and set worker.run_as of a worker that alone "
                "serves the queue of these tasks"
            )
    return ""


def _ordered(dag: Any) -> list[Any]:
    """Return the tasks, upstream first, otherwise in the order they were made."""
    before = {name: sorted(task.upstream_task_ids) for name, task in dag.task_dict.items()}
    return [dag.task_dict[name] for name in TopologicalSorter(before).static_order()]


def _param(param: Any) -> ParamStructure:
    return ParamStructure(
        value=_as_json(param.value) if param.has_value else None,
        required=not param.has_value,
        schema=_as_json(dict(param.schema or {})),
    )


def _as_json(value: Any) -> Any:
    """Return a value as JSON has it: the keys of its dicts are texts, as for a form's choices."""
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=str))


def _task(task: Any, notes: Notes) -> TaskStructure:
    group = next(iter(task.iter_mapped_task_groups()), None)
    pool, queue = _given(task, "pool"), _given(task, "queue")
    for name, line in _NOT_YET.items():
        if _given(task, name):
            notes.add(line)
    own = _factors(task._get_specified_expand_input()) if task.is_mapped else ()  # noqa: SLF001
    around = () if group is None else _factors(group._expand_input)  # noqa: SLF001
    if own and around:
        notes.add(f"task {task.task_id!r} is mapped in a mapped group")
    return TaskStructure(
        task_id=task.task_id,
        operator=str(_given(task, "task_type") or type(task).__name__),
        kind="empty" if _is_empty(task) else "task",
        role=_role(task),
        upstream=tuple(sorted(task.upstream_task_ids)),
        trigger_rule=str(getattr(task.trigger_rule, "value", task.trigger_rule)),
        retries=int(_given(task, "retries") or 0),
        retry_delay=_seconds(_given(task, "retry_delay")) or 0.0,
        retry_backoff=_backoff(_given(task, "retry_exponential_backoff")),
        max_retry_delay=_longest_delay(task),
        timeout=_seconds(_given(task, "execution_timeout")),
        outlets=_assets(_given(task, "outlets"), notes),
        inlets=_assets(_given(task, "inlets"), notes),
        queue=str(queue or _DEFAULT_QUEUE),
        pool=None if pool in (None, _DEFAULT_POOL) else str(pool),
        pool_slots=int(_given(task, "pool_slots") or 1),
        priority=weight_of(task, notes),
        factors=around or own,
        groups=_groups(task),
        map_group="" if group is None else str(group.group_id),
        depends_on_past=bool(_given(task, "depends_on_past")),
        wait_for_downstream=bool(_given(task, "wait_for_downstream")),
        fails_run=bool(_given(task, "on_failure_fail_dagrun")),
        limit_all=_given(task, "max_active_tis_per_dag"),
        limit_run=_given(task, "max_active_tis_per_dagrun"),
        reschedules=_mode(task) == "reschedule",
        callbacks=tuple(name for name in _CALLBACKS if _given(task, f"{name}_callback")),
        doc=_given(task, "doc_md") or _given(task, "doc") or None,
    )


def _given(task: Any, name: str) -> Any:
    """Return an attribute of a task; None where this kind of task has none."""
    return getattr(task, name, None)


def _mode(task: Any) -> str | None:
    """Return how a sensor waits between its looks; None for other tasks."""
    given: dict[str, Any] = task.partial_kwargs if task.is_mapped else vars(task)
    return given.get("mode")


def _role(task: Any) -> str:
    if _given(task, "is_setup"):
        return "setup"
    if _given(task, "is_teardown"):
        return "teardown"
    kind = _operator_class(task)
    names = {base.__name__ for base in kind.__mro__}
    if not (issubclass(kind, SdkSkipMixin) or names & _SKIP_MIXINS):
        return "task"
    if "ShortCircuitOperator" not in names:
        return "branch"
    given = getattr(task, "ignore_downstream_trigger_rules", None)
    if given is None and task.is_mapped:
        given = task.partial_kwargs.get("ignore_downstream_trigger_rules", True)
    return "branch" if given is False else "short_circuit"


def _operator_class(task: Any) -> type:
    found = _given(task, "operator_class") if task.is_mapped else type(task)
    return found if isinstance(found, type) else type(task)


def _groups(task: Any) -> tuple[str, ...]:
    found: list[str] = []
    group = task.task_group
    while group is not None and group.group_id:
        found.insert(0, group.group_id)
        group = group.parent_group
    return tuple(found)


def _is_empty(task: Any) -> bool:
    """Return whether there is nothing to run: as in Airflow, also no callback and no outlet."""
    if not _given(task, "inherits_from_empty_operator") or task.is_mapped:
        return False
    called = any(_given(task, f"{name}_callback") for name in ("on_execute", "on_success"))
    return not (task.outlets or called)


def _backoff(value: Any) -> float:
    """Return the factor: Airflow takes a number since 3.2, where True stands for 2."""
    if not value:
        return 1.0
    return 2.0 if value is True else max(float(value), 1.0)


def _longest_delay(task: Any) -> float | None:
    """Return the bound of the delay between attempts: Airflow has one where the delay grows.

    See `TaskInstance.next_retry_datetime`.
    """
    if _backoff(_given(task, "retry_exponential_backoff")) == 1:
        return None
    bound = _seconds(_given(task, "max_retry_delay"))
    return min(bound or _LONGEST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS)


def _moment(value: Any) -> datetime | None:
    """Return a plain datetime; Airflow's may be of a class of pendulum's, or a mark for none."""
    return datetime.fromisoformat(value.isoformat()) if isinstance(value, datetime) else None


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def _factors(expand: Any) -> tuple[MapFactor, ...]:
    """Return what decides how many instances there are; the SDK picks the elements later."""
    value = expand.value
    named = {"": value} if isinstance(expand, ListOfDictsExpandInput) else value
    if not isinstance(named, dict):
        named = {"": value}
    return tuple(_factor(str(name), each) for name, each in named.items())


def _factor(name: str, value: Any) -> MapFactor:
    if isinstance(value, xcom_arg.MapXComArg):
        return _factor(name, value.arg)
    if isinstance(value, xcom_arg.PlainXComArg):
        return MapFactor(name, task_id=value.operator.task_id)
    if isinstance(value, xcom_arg.ZipXComArg):
        filled = is_arg_set(value.fillvalue)
        return _combined(name, "longest" if filled else "zip", value.args)
    if isinstance(value, xcom_arg.ConcatXComArg):
        return _combined(name, "concat", value.args)
    return MapFactor(name, length=len(value))


def _combined(
    name: str, kind: Literal["zip", "longest", "concat"], parts: Sequence[Any]
) -> MapFactor:
    return MapFactor(name, combined=kind, parts=tuple(_factor(name, part) for part in parts))


def _assets(given: Iterable[Any] | None, notes: Notes) -> tuple[AssetStructure, ...]:
    found = []
    for asset in given or ():
        made = asset_of(asset)
        if made is None:
            notes.add(f"an outlet or inlet of the type {type(asset).__name__} is not kept")
        else:
            found.append(made)
    return tuple(found)
