from datetime import datetime

from airflow import DAG
from airflow.providers.sqlite.operators.sqlite import SqliteOperator

with DAG("sqlite_2", schedule_interval="@daily", start_date=datetime(2021, 1, 1), catchup=False) as dag:
    SqliteOperator(task_id="create", sqlite_conn_id="sqlite_default", sql="CREATE TABLE x (a int)")
    SqliteOperator(task_id="insert", sql=["INSERT INTO x VALUES (1)", "INSERT INTO x VALUES (2)"])
