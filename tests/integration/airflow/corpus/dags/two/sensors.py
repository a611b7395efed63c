from datetime import datetime, time, timedelta

from airflow import DAG
from airflow.sensors.bash import BashSensor
from airflow.sensors.date_time import DateTimeSensor, DateTimeSensorAsync
from airflow.sensors.filesystem import FileSensor
from airflow.sensors.python import PythonSensor
from airflow.sensors.time_delta import TimeDeltaSensor
from airflow.sensors.time_sensor import TimeSensor
from airflow.sensors.weekday import DayOfWeekSensor

with DAG("sensors_2", schedule="@daily", start_date=datetime(2021, 1, 1), catchup=False):
    TimeDeltaSensor(task_id="delta", delta=timedelta(seconds=2))
    TimeSensor(task_id="time", target_time=time(3, 0))
    DateTimeSensor(task_id="moment", target_time="{{ execution_date + macros.timedelta(hours=1) }}")
    DateTimeSensorAsync(task_id="async", target_time="{{ data_interval_end }}")
    BashSensor(task_id="bash", bash_command="exit 0", timeout=3, soft_fail=True)
    PythonSensor(task_id="python", python_callable=lambda: True, mode="reschedule")
    FileSensor(task_id="file", filepath="/tmp/x", deferrable=True)
    DayOfWeekSensor(task_id="day", week_day="Monday", use_task_execution_day=True)
