from datetime import datetime

from airflow import DAG
from airflow.hooks.base_hook import BaseHook
from airflow.operators.bash_operator import BashOperator

slack_token = BaseHook.get_connection('slack').password

dag = DAG('connection_1_10', start_date=datetime(2018, 1, 1), schedule_interval='@daily')
BashOperator(task_id='w', bash_command='true', env={'LENGTH': str(len(slack_token))}, dag=dag)
