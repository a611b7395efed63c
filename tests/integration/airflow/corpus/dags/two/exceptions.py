from datetime import datetime

from airflow import DAG
from airflow.exceptions import AirflowException, AirflowFailException, AirflowSensorTimeout, AirflowSkipException
from airflow.operators.python import PythonOperator
from airflow.utils.log.logging_mixin import LoggingMixin
from airflow.utils.log.secrets_masker import mask_secret
from airflow.utils.module_loading import import_string
from airflow.utils.state import State, TaskInstanceState


def work():
    mask_secret("x")
    LoggingMixin().log.info("%s %s", State.SUCCESS, import_string("json.dumps"))
    raise AirflowSkipException("not today")


with DAG("exceptions_2", schedule="@daily", start_date=datetime(2022, 1, 1)):
    PythonOperator(task_id="w", python_callable=work)
assert AirflowException and AirflowFailException and AirflowSensorTimeout and TaskInstanceState
