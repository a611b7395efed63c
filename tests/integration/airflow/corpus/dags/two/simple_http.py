from datetime import datetime

from airflow import DAG
from airflow.providers.http.operators.http import SimpleHttpOperator

with DAG("simple_http_2", schedule="@daily", start_date=datetime(2022, 1, 1)):
    SimpleHttpOperator(task_id="get", http_conn_id="api", method="GET", endpoint="/v1")
