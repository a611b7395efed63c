from datetime import datetime

from airflow import DAG
from airflow.sensors.base import BaseSensorOperator, PokeReturnValue


class Ready(BaseSensorOperator):
    def poke(self, context):
        return PokeReturnValue(is_done=True, xcom_value=context["ds"])


with DAG("sensor_class_2", schedule="@daily", start_date=datetime(2021, 1, 1), catchup=False):
    Ready(task_id="ready", poke_interval=10, exponential_backoff=True)
