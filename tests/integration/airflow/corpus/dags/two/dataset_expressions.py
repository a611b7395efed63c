from datetime import datetime

from airflow import DAG
from airflow.datasets import Dataset, DatasetAlias
from airflow.datasets.metadata import Metadata
from airflow.decorators import task
from airflow.timetables.datasets import DatasetOrTimeSchedule
from airflow.timetables.trigger import CronTriggerTimetable

a, b = Dataset("s3://lake/a"), Dataset("s3://lake/b")

with DAG("either_2", start_date=datetime(2024, 1, 1), schedule=(a | b)):

    @task(outlets=[DatasetAlias("alias")])
    def emit():
        yield Metadata(Dataset("s3://lake/c"), {"rows": 1}, alias="alias")

    emit()

with DAG(
    "or_time_2",
    start_date=datetime(2024, 1, 1),
    schedule=DatasetOrTimeSchedule(
        timetable=CronTriggerTimetable("0 1 * * 3", timezone="UTC"), datasets=(a & b)),
):

    @task
    def work():
        pass

    work()
