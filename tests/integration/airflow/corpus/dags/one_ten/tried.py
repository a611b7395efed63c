from datetime import datetime

try:
    from airflow.operators.bash import BashOperator
except ImportError:
    from airflow.operators.bash_operator import BashOperator
try:
    from airflow.contrib.operators.nothing_of_the_kind import Nothing
except ImportError:
    Nothing = None
from airflow import DAG

dag = DAG('tried', start_date=datetime(2018, 1, 1), schedule_interval='@daily')
BashOperator(task_id='a', bash_command='true', dag=dag)
