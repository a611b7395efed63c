"""Old names of a task's context, and old attributes of task instances and runs."""

import functools
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

_DAY = "%Y-%m-%d"
_PLAIN_DAY = "%Y%m%d"


def add_old_names(context: dict[str, Any]) -> None:
    """Add the names that a context had in Airflow 2; what is there stays.

    A run without a logical date, as one started by an asset, gets none that would be made from it.

    Args:
        context: A task's context; it is changed.
    """
    for name, value in {**_always(context), **_dates(context)}.items():
        context.setdefault(name, value)


def _always(context: dict[str, Any]) -> dict[str, Any]:
    from airflow.sdk.configuration import conf  # noqa: PLC0415 - with it, Airflow is initialised

    found: dict[str, Any] = {"conf": conf, "test_mode": False}
    if "triggering_asset_events" in context:
        found["triggering_dataset_events"] = context["triggering_asset_events"]
    return found


def _dates(context: dict[str, Any]) -> dict[str, Any]:
    logical = context.get("logical_date")
    if logical is None:
        return {}
    start = context.get("data_interval_start") or logical
    end = context.get("data_interval_end") or logical
    length = (end - start) or timedelta(days=1)
    following, previous = (end if end != start else logical + length), logical - length
    found: dict[str, Any] = {
        "execution_date": logical,
        "next_execution_date": following,
        "prev_execution_date": previous,
        "latest_date": logical.strftime(_DAY),
    }
    day = timedelta(days=1)
    moments = {"next": following, "prev": previous}
    moments |= {"yesterday": logical - day, "tomorrow": logical + day}
    for name, moment in moments.items():
        found[f"{name}_ds"] = moment.strftime(_DAY)
        found[f"{name}_ds_nodash"] = moment.strftime(_PLAIN_DAY)
    if "prev_data_interval_start_success" in context:
        found["prev_execution_date_success"] = context["prev_data_interval_start_success"]
    return found


def install_old_attributes() -> None:
    """Give task instances and runs the attributes that they had in Airflow 2, in this process."""
    from airflow.sdk.api.datamodels._generated import DagRun  # noqa: PLC0415
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance  # noqa: PLC0415

    instance: Any = RuntimeTaskInstance
    run: Any = DagRun
    run.execution_date = property(lambda self: self.logical_date)
    instance.dag_run = property(lambda self: self.get_template_context()["dag_run"])
    instance.execution_date = property(lambda self: self.dag_run.logical_date)
    instance.log = property(lambda self: self.task.log)
    instance.get_dagrun = lambda self, session=None: self.dag_run  # noqa: ARG005 - as it was called
    pull = instance.xcom_pull

    @functools.wraps(pull)
    def xcom_pull(
        self: Any, task_ids: Any = None, dag_id: Any = None, key: str = "return_value", **more: Any
    ) -> Any:
        if task_ids is not None or dag_id is not None or more:
            return pull(self, task_ids, dag_id, key, **more)
        # Until 2.11 it meant: of any task of the run. The nearest one that has it is the likeliest.
        for each in _nearest(self.task):
            found = pull(self, each, None, key)
            if found is not None:
                return found
        return None

    instance.xcom_pull = xcom_pull


def _nearest(task: Any) -> Iterator[str]:
    """Yield the other tasks of a DAG, those upstream first, the nearest of them before others."""
    tasks = task.dag.task_dict
    seen, layer = {task.task_id}, sorted(task.upstream_task_ids)
    while layer:
        yield from layer
        seen.update(layer)
        above = {name for each in layer for name in tasks[each].upstream_task_ids}
        layer = sorted(above - seen)
    yield from sorted(tasks.keys() - seen)
