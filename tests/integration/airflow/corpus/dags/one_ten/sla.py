from datetime import datetime, timedelta

from airflow import DAG
from airflow.operators.bash_operator import BashOperator


def told(dag, task_list, blocking_task_list, slas, blocking_tis):
    print(task_list)


default_args = {'owner': 'ops', 'start_date': datetime(2019, 1, 1), 'sla': timedelta(hours=1)}
dag = DAG(
    'sla_1_10', 'Watches itself', '@hourly', default_args=default_args, sla_miss_callback=told,
    concurrency=2, orientation='TB', default_view='graph')
BashOperator(task_id='work', bash_command='sleep 1', sla=timedelta(minutes=5), task_concurrency=1, dag=dag)
