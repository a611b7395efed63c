from datetime import datetime

from airflow.models import DAG
from airflow.operators import BashOperator, DummyOperator, PythonOperator

dag = DAG('very_old', start_date=datetime(2016, 1, 1), schedule_interval='@daily')
a = DummyOperator(task_id='a', dag=dag)
b = BashOperator(task_id='b', bash_command='true', dag=dag)
c = PythonOperator(task_id='c', python_callable=print, dag=dag)
b.set_upstream(a)
c.set_upstream(b)
