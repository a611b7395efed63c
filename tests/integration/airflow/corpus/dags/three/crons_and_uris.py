"""Crons with seconds, years and ranges that go round; assets whose URIs are none elsewhere."""

import datetime

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset

SCHEDULES = {
    "seconds": "0 6 * * * 30",
    "years": "0 6 1 1 * 0 2031",
    "weekend": "0 6 * * FRI-MON",
    "assets": [Asset("our_lake://orders"), Asset("file:///srv/all orders.csv")],
}

for name, schedule in SCHEDULES.items():
    with DAG(f"{name}_3", schedule=schedule, start_date=datetime.datetime(2026, 1, 1)):
        EmptyOperator(task_id="a", outlets=[Asset("s3://lake/{{ ds }}")])
