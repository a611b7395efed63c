from datetime import datetime, timedelta

from airflow.providers.standard.sensors.date_time import DateTimeSensor
from airflow.providers.standard.sensors.external_task import ExternalTaskSensor
from airflow.providers.standard.sensors.filesystem import FileSensor
from airflow.providers.standard.sensors.python import PythonSensor
from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.sdk import DAG

with DAG("sensors_3", schedule="@daily", start_date=datetime(2025, 1, 1)):
    TimeDeltaSensor(task_id="delta", delta=timedelta(minutes=1), deferrable=True)
    DateTimeSensor(task_id="moment", target_time="{{ data_interval_end }}")
    FileSensor(task_id="file", filepath="/x", soft_fail=True, timeout=10)
    PythonSensor(task_id="python", python_callable=bool, poke_interval=5)
    ExternalTaskSensor(task_id="other", external_dag_id="classic_3", external_task_group_id="g")
