from datetime import datetime

from airflow import DAG
from airflow.operators.dummy_operator import DummyOperator
from airflow.operators.python_operator import PythonOperator


def push(**kwargs):
    kwargs['ti'].xcom_push(key='rows', value=[1, 2, 3])


def pull(**kwargs):
    rows = kwargs['ti'].xcom_pull(key='rows', task_ids='push')
    print(len(rows), kwargs['execution_date'], kwargs['next_ds'])


with DAG('provide_context', schedule_interval=None, start_date=datetime(2019, 5, 1)) as dag:
    start = DummyOperator(task_id='start')
    a = PythonOperator(task_id='push', python_callable=push, provide_context=True)
    b = PythonOperator(task_id='pull', python_callable=pull, provide_context=True)
    start >> a >> b
