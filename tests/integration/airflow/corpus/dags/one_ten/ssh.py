from datetime import datetime

from airflow import DAG
from airflow.contrib.operators.ssh_operator import SSHOperator

dag = DAG('ssh_1_10', start_date=datetime(2018, 1, 1), schedule_interval='@daily')
SSHOperator(task_id='remote', ssh_conn_id='edge', command='uptime', dag=dag)
