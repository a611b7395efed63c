from datetime import datetime, timedelta

from airflow import DAG
from airflow.operators.bash_operator import BashOperator

dag = DAG('every_six_hours', start_date=datetime(2018, 1, 1), schedule_interval=timedelta(hours=6))
BashOperator(task_id='w', bash_command='echo {{ next_execution_date }} {{ prev_execution_date }}', dag=dag)
