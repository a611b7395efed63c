from datetime import datetime

from airflow import DAG
from airflow.operators.bash_operator import BashOperator
from packed_helper import command

with DAG("packed", schedule_interval="@daily", start_date=datetime(2022, 1, 1)):
    BashOperator(task_id="a", bash_command=command())
