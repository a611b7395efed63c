import datetime

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG("never", schedule="0 0 31 2 *", start_date=datetime.datetime(2026, 1, 1)):
    EmptyOperator(task_id="a")
