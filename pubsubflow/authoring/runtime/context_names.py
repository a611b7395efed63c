"""Names of Airflow's task context, for templates and for functions that take `**context`."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from pubsubflow.authoring.runtime.context import Context, current_context
from pubsubflow.authoring.runtime.named_values import ConnectionNames, VariableNames
from pubsubflow.authoring.runtime.templating.lazy_value import LazyValue
from pubsubflow.authoring.runtime.templating.macros import MACROS
from pubsubflow.authoring.schedules.own_timetables import Timetable, latest_own_tick
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.model.schedule.conditions import Tick, ticks
from pubsubflow.model.schedule.timetable import latest_tick
from pubsubflow.model.wire.worker_requests import RETURN_VALUE

_MOMENT = timedelta(microseconds=1)
# The longest time between two ticks: `Every` may be ten years, a Cron on 29 February eight.
_LONGEST = timedelta(days=3700)


class DagNames(Struct, frozen=True):
    """The DAG, as far as templates use it."""

    dag_id: str
    tags: tuple[str, ...] = ()
    description: str | None = None
    owner: str | None = None


class DagRunNames:
    """The run under Airflow's names; its own are those of `ctx.run`.

    Attributes:
        conf: The params, as a dict.
    """

    def __init__(self, context: Context) -> None:
        run = context.run
        self.run_id, self.dag_id, self.run_type = run.run_id, run.dag_id, run.kind
        self.conf: dict[str, Any] = _as_dict(run.params)
        self.logical_date = self.execution_date = logical_date(context)
        self.partition_key = run.partition
        self.queued_at = run.created_at
        self.external_trigger = run.kind == "manual"


class TaskInstanceNames:
    """The task instance under Airflow's names.

    Attributes:
        try_number: Counted from 1.
        map_index: -1 for a plain task.
        log: The task's logger.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self.task_id, self.map_index = context.task.task_id, context.task.map_index
        self.dag_id, self.run_id = context.run.dag_id, context.run.run_id
        self.try_number = context.attempt
        self.task, self.log = context.task, context.log

    def xcom_push(self, key: str, value: Any) -> None:
        """Do what `ctx.push` does."""
        self._context.push(key, value)

    def xcom_pull(
        self,
        task_ids: str | Iterable[str] | None = None,
        dag_id: str | None = None,
        key: str = RETURN_VALUE,
        *,
        map_indexes: int | Iterable[int] | None = None,
        run_id: str | None = None,
        default: Any = None,
    ) -> Any:
        """Do what `ctx.pull` does, for one task or a list of tasks; None for what is not there.

        Raises:
            DefinitionError: A task is not named, or one of this run is not upstream.
        """
        if task_ids is None:
            raise definition_error(
                "xcom_pull() needs task_ids=, the id of a task or a list of ids",
                dag_id=self.dag_id,
                task_id=self.task_id,
            )
        if not isinstance(task_ids, str):
            return [
                self.xcom_pull(
                    each, dag_id, key, map_indexes=map_indexes, run_id=run_id, default=default
                )
                for each in task_ids
            ]
        pull = self._context.pull
        if map_indexes is None or isinstance(map_indexes, int):
            return pull(task_ids, key, map_indexes, run_id, dag_id, default=default)
        return [pull(task_ids, key, each, run_id, dag_id, default=default) for each in map_indexes]


def logical_date(context: Context) -> datetime:
    """Return the run's tick; for a run that time did not start the moment it was created."""
    return context.run.logical_time or context.run.created_at


def data_interval(context: Context, before: int = 0) -> tuple[datetime, datetime]:
    """Return from which tick to which a run by time goes; for other runs its moment, twice.

    Args:
        context: The task's.
        before: How many intervals earlier.
    """
    if context.run.logical_time is None:
        return logical_date(context), logical_date(context)
    return _interval_at(context, context.run.logical_time, before)


def _interval_at(context: Context, tick: datetime, before: int) -> tuple[datetime, datetime]:
    end = start = tick
    schedule = getattr(context.dag, "schedule", None)
    if schedule is None:
        return start, end
    own = getattr(context.dag, "own_timetables", {})
    parts = list(ticks(schedule.condition))
    for _ in range(before + 1):
        end, until = start, start - _MOMENT
        found = (_latest_tick(part, own.get(part.slot), until) for part in parts)
        start = max((tick for tick in found if tick is not None), default=end)
    return start, end


def _latest_tick(part: Tick, own: Timetable | None, until: datetime) -> datetime | None:
    if own is not None:
        return latest_own_tick(own, until, _LONGEST)
    return latest_tick(part.timetable, until - _LONGEST, until, None, None)


def interval_of_success(context: Context) -> tuple[datetime | None, datetime | None]:
    """Return from which tick to which the last run before went that has succeeded."""
    found = context.previous_success
    if found is None:
        return None, None
    if found.logical_time is None:
        return found.created_at, found.created_at
    return _interval_at(context, found.logical_time, 0)


def start_of_success(context: Context) -> datetime | None:
    """Return when the last run before started that has succeeded."""
    found = context.previous_success
    return None if found is None else found.started_at or found.created_at


def context_names(context: Context) -> dict[str, Any]:
    """Return the names that functions get, with their values.

    Those that cost a request are read at their first use. Elements may have to be fetched first:
    functions have them in their arguments.
    """
    return {
        name: LazyValue(partial(read, context)) if name in REQUESTED else read(context)
        for name, read in NAMES.items()
        if name != "element"
    }


def get_current_context() -> dict[str, Any]:
    """Return the context of the running task under Airflow's names; see `current_context`.

    Raises:
        DefinitionError: No task runs in this thread or coroutine.
    """
    return context_names(current_context())


def _as_dict(params: Any) -> dict[str, Any]:
    found = params if isinstance(params, Mapping) else msgspec.to_builtins(params)
    return dict(found)


def _dag(context: Context) -> DagNames:
    spec = getattr(context.dag, "described", None)
    return DagNames(context.run.dag_id) if spec is None else DagNames(*spec)


def _utc(context: Context) -> datetime:
    return logical_date(context).astimezone(UTC)


NAMES: Mapping[str, Callable[[Context], Any]] = {
    "conn": ConnectionNames,
    "ctx": lambda context: context,
    "dag": _dag,
    "dag_run": DagRunNames,
    "data_interval_end": lambda context: data_interval(context)[1],
    "data_interval_start": lambda context: data_interval(context)[0],
    "ds": lambda context: _utc(context).strftime("%Y-%m-%d"),
    "ds_nodash": lambda context: _utc(context).strftime("%Y%m%d"),
    "element": lambda context: context.element,
    "events": lambda context: context.events,
    "execution_date": logical_date,
    "logical_date": logical_date,
    "macros": lambda _: MACROS,
    "params": lambda context: context.run.params,
    "partition": lambda context: context.run.partition,
    "prev_data_interval_end": lambda context: data_interval(context, 1)[1],
    "prev_data_interval_start": lambda context: data_interval(context, 1)[0],
    "prev_data_interval_end_success": lambda context: interval_of_success(context)[1],
    "prev_data_interval_start_success": lambda context: interval_of_success(context)[0],
    "prev_start_date_success": start_of_success,
    "run": lambda context: context.run,
    "run_id": lambda context: context.run.run_id,
    "task": lambda context: context.task,
    "task_instance": TaskInstanceNames,
    "task_instance_key_str": lambda context: (
        f"{context.run.dag_id}__{context.task.task_id}__{_utc(context):%Y%m%d}"
    ),
    "ti": TaskInstanceNames,
    "triggering_asset_events": lambda context: context.events,
    "ts": lambda context: _utc(context).isoformat(),
    "ts_nodash": lambda context: _utc(context).strftime("%Y%m%dT%H%M%S"),
    "ts_nodash_with_tz": lambda context: _utc(context).strftime("%Y%m%dT%H%M%S%z"),
    "var": VariableNames,
}
"""The names that templates may use, besides those of jinja2; `**context` gets all but `element`."""
REQUESTED = frozenset(
    {
        "prev_data_interval_end_success",
        "prev_data_interval_start_success",
        "prev_start_date_success",
    }
)
"""Those of the names that a manager is requested for."""
