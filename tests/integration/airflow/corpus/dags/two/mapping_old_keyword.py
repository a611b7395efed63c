from datetime import datetime, timedelta

from airflow import DAG
from airflow.operators.bash import BashOperator

with DAG(dag_id="mapping_old_keyword", start_date=datetime(2022, 3, 4), schedule_interval=None):
    BashOperator.partial(task_id="b", task_concurrency=2, sla=timedelta(hours=1)).expand(
        bash_command=["echo 1"])
