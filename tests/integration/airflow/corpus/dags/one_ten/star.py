from datetime import datetime

from airflow import DAG
from airflow.operators.python_operator import *

dag = DAG('star_1_10', start_date=datetime(2018, 1, 1), schedule_interval='@daily')
PythonOperator(task_id='w', python_callable=print, dag=dag)
