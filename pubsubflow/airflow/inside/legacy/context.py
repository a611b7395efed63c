"""Old names of a task's context, and old attributes of task instances and runs."""

import functools
from collections.abc import Callable
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


def install_old_attributes(find_anywhere: Callable[[Any, str], Any]) -> None:
    """Give task instances and runs the attributes that they had in Airflow 2, in this process.

    Args:
        find_anywhere: Returns, for a task instance and a key, the newest XCom with that key of any
            task of the run, or None: `ti.xcom_pull(key=...)` without task_ids meant that.
    """
    from airflow.sdk.api.datamodels._generated import DagRun  # noqa: PLC0415
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance  # noqa: PLC0415

    instance: Any = RuntimeTaskInstance
    run: Any = DagRun
    run.execution_date = property(lambda self: self.logical_date)
    instance.dag_run = property(lambda self: self.get_template_context()["dag_run"])
    instance.execution_date = property(lambda self: self.dag_run.logical_date)
    instance.log = property(lambda self: self.task.log)
    instance.get_dagrun = lambda self, session=None: self.dag_run  # noqa: ARG005 - as it was called
    before = instance.xcom_pull

    @functools.wraps(before)
    def xcom_pull(
        self: Any, task_ids: Any = None, dag_id: Any = None, key: str = "return_value", **more: Any
    ) -> Any:
        if task_ids is None and dag_id is None and not more:
            return find_anywhere(self, key)
        return before(self, task_ids, dag_id, key, **more)

    instance.xcom_pull = xcom_pull
