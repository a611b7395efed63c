from datetime import datetime

import airflow.operators.bash_operator
import airflow.operators.python_operator as py
from airflow import DAG
from airflow.operators import dummy_operator

dag = DAG('module_alias', start_date=datetime(2018, 1, 1), schedule_interval='@daily')
a = airflow.operators.bash_operator.BashOperator(task_id='a', bash_command='true', dag=dag)
b = py.PythonOperator(task_id='b', python_callable=print, dag=dag)
c = dummy_operator.DummyOperator(task_id='c', dag=dag)
a >> b >> c
