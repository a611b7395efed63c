from datetime import datetime

from airflow import DAG
from airflow.operators.hive_operator import HiveOperator

dag = DAG('hive_1_10', start_date=datetime(2017, 1, 1), schedule_interval='@daily')
HiveOperator(task_id='q', hql='select 1', dag=dag)
