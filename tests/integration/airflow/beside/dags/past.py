"""Tasks that wait for the previous run, and tasks with each kind of delay between attempts."""

from datetime import timedelta

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG("past", schedule=None, start_date=pendulum.datetime(2026, 1, 1)):
    for name, options in {
        "plain": {},
        "past": {"depends_on_past": True},
        "whole": {"wait_for_downstream": True},
    }.items():
        first = BashOperator(task_id=name, bash_command="true", **options)
        first >> BashOperator(task_id=f"{name}_after", bash_command="true")

with DAG("delays", schedule=None, start_date=pendulum.datetime(2026, 1, 1)):
    for name, options in {
        "even": {"retry_delay": timedelta(seconds=7)},
        "doubled": {"retry_delay": timedelta(seconds=5), "retry_exponential_backoff": True},
        "factor": {"retry_delay": timedelta(seconds=2), "retry_exponential_backoff": 3},
        "capped": {
            "retry_delay": timedelta(minutes=1),
            "retry_exponential_backoff": True,
            "max_retry_delay": timedelta(minutes=5),
        },
        "capped_even": {
            "retry_delay": timedelta(minutes=9),
            "max_retry_delay": timedelta(minutes=5),
        },
    }.items():
        BashOperator(task_id=name, bash_command="true", retries=60, **options)
