from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset
from airflow.timetables.assets import AssetOrTimeSchedule
from airflow.timetables.trigger import CronTriggerTimetable, MultipleCronTriggerTimetable

a, b = Asset("x-files://a"), Asset(name="b", uri="file:///b")

with DAG("asset_or_time_3", schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("@hourly", timezone="UTC"), assets=(a | b))):
    EmptyOperator(task_id="a")

with DAG("crons_3", schedule=MultipleCronTriggerTimetable("0 1 * * *", "0 13 * * *", timezone="UTC")):
    EmptyOperator(task_id="a")
