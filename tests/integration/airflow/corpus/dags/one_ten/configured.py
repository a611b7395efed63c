import os
from datetime import datetime

from airflow import DAG, configuration as conf
from airflow.operators.bash_operator import BashOperator

folder = conf.get('core', 'dags_folder')
dag = DAG('configured_1_10', start_date=datetime(2018, 1, 1), schedule_interval=None)
BashOperator(task_id='ls', bash_command='ls ' + os.path.join(folder, 'sql'), dag=dag)
