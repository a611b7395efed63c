from datetime import datetime

from airflow import DAG
from airflow.lineage.entities import File
from airflow.operators.bash import BashOperator

with DAG("lineage_2", schedule="@daily", start_date=datetime(2022, 1, 1)):
    BashOperator(task_id="w", bash_command="true", inlets=[File(url="/tmp/a")], outlets=[File(url="/tmp/b")])
