from datetime import datetime

from airflow import DAG
from airflow.hooks.base import BaseHook
from airflow.operators.bash import BashOperator

host = BaseHook.get_connection("dw").host

with DAG("top_hook_2", schedule="@daily", start_date=datetime(2022, 1, 1)):
    BashOperator(task_id="w", bash_command=f"ls {host}")
