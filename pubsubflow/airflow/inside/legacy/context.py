"""Old names of a task's context, and old attributes of task instances and runs."""

import functools
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

_DAY = timedelta(days=1)


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
    # Arithmetic of pendulum's moments is a tenth of what an attempt costs: only what is needed.
    length = _DAY if end == start else end - start
    following, previous = (logical + length if end == start else end), logical - length
    found: dict[str, Any] = {
        "execution_date": logical,
        "next_execution_date": following,
        "prev_execution_date": previous,
        "latest_date": date.isoformat(logical),
    }
    today = logical.toordinal()
    days = {"next": following, "prev": previous}
    days |= {"yesterday": date.fromordinal(today - 1), "tomorrow": date.fromordinal(today + 1)}
    for name, day in days.items():
        found[f"{name}_ds"] = text = date.isoformat(day)
        found[f"{name}_ds_nodash"] = text.replace("-", "")
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
