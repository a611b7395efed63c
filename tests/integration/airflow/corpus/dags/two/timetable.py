from datetime import datetime

from airflow import DAG
from airflow.operators.empty import EmptyOperator
from airflow.timetables.interval import CronDataIntervalTimetable

with DAG("timetable_2", start_date=datetime(2023, 1, 1), timetable=CronDataIntervalTimetable("0 0 * * *", "UTC")):
    EmptyOperator(task_id="a")
