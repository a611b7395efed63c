"""The first DAG: an empty task, then a command, every day."""

from datetime import datetime, timedelta

from pubsubflow import DAG, BashOperator, EmptyOperator

default_args = {
    "owner": "data",
    "depends_on_past": False,
    "start_date": datetime(2022, 5, 1),
    "email": ["data@example.org"],
    "email_on_failure": False,
    "retries": 1,
    "retry_delay": timedelta(minutes=5),
}

with DAG("hello_dag", default_args=default_args, schedule="@daily", catchup=False) as dag:
    start = EmptyOperator(task_id="start")
    hello = BashOperator(task_id="hello", bash_command="echo 'Hi, {{ dag.dag_id }} of {{ ds }}'")

    start >> hello
