"""Dates and macros of each kind of timetable, params, and values of all kinds of XComs."""

from datetime import timedelta
from decimal import Decimal

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.latest_only import LatestOnlyOperator
from airflow.sdk import DAG, Param, task
from airflow.timetables.interval import CronDataIntervalTimetable, DeltaDataIntervalTimetable
from airflow.timetables.trigger import CronTriggerTimetable

START = pendulum.datetime(2026, 1, 1)
DATES = (
    "{{ ds }} {{ ds_nodash }} {{ ts }} {{ ts_nodash }} {{ logical_date }} "
    "{{ data_interval_start }} {{ data_interval_end }} {{ prev_data_interval_start_success }} "
    "{{ prev_start_date_success }} {{ dag_run.run_type }} {{ macros.ds_add(ds, 5) }} "
    "{{ macros.ds_format(ds, '%Y-%m-%d', '%d.%m.%y') }} "
    "{{ (logical_date - macros.timedelta(1)) | ds }} "
    "{{ task.task_id }} {{ dag.dag_id }} {{ ti.try_number }} {{ params.day }}"
)
SCHEDULES = {
    "none": None,
    "preset": "@daily",
    "cron": "30 6 * * 1-5",
    "delta": timedelta(hours=5),
    "interval": CronDataIntervalTimetable("0 3 * * *", timezone="Europe/Warsaw"),
    "delta_interval": DeltaDataIntervalTimetable(timedelta(days=2)),
    "trigger": CronTriggerTimetable("0 3 * * *", timezone="Asia/Tokyo"),
}

for name, schedule in SCHEDULES.items():
    with DAG(
        f"dates_{name}",
        schedule=schedule,
        start_date=START,
        catchup=False,
        params={"day": Param("monday", enum=["monday", "tuesday"])},
    ):
        BashOperator(task_id="dates", bash_command=f"echo '{DATES}'")
        LatestOnlyOperator(task_id="latest") >> BashOperator(task_id="after", bash_command="echo 1")

with DAG("values", schedule=None, start_date=START):

    @task
    def made():
        return {
            "moment": pendulum.datetime(2026, 5, 6, tz="Europe/Warsaw"),
            "amount": Decimal("1.50"),
            "tuple": (1, 2),
            "set": {3},
            "nested": [{"none": None, "half": 0.5}],
        }

    @task(multiple_outputs=True)
    def several():
        return {"a": 1, "b": [2]}

    @task
    def seen(found, a, b):
        moment = found["moment"]
        return [str(moment), str(found["amount"]), list(found["tuple"]), sorted(found["set"]), a, b]

    parts = several()
    seen(made(), parts["a"], parts["b"])

    @task(retries=2, retry_delay=timedelta(0))
    def third(ti=None):
        if ti.try_number < 3:
            raise RuntimeError("not yet")
        return ti.try_number

    third()
