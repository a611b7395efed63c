import random
from datetime import datetime

from airflow import DAG
from airflow.operators.dummy_operator import DummyOperator
from airflow.operators.python_operator import BranchPythonOperator

dag = DAG('branching_1_10', start_date=datetime(2018, 9, 1), schedule_interval="@hourly", catchup=False)

run_this_first = DummyOperator(task_id='run_this_first', dag=dag)
options = ['branch_a', 'branch_b', 'branch_c']
branching = BranchPythonOperator(
    task_id='branching',
    python_callable=lambda: random.choice(options),
    dag=dag,
)
run_this_first >> branching
join = DummyOperator(task_id='join', trigger_rule='one_success', dag=dag)
for option in options:
    t = DummyOperator(task_id=option, dag=dag)
    follow = DummyOperator(task_id='follow_' + option, dag=dag)
    branching >> t >> follow >> join
