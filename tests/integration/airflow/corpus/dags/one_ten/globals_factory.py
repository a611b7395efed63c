from datetime import datetime

from airflow import DAG
from airflow.operators.python_operator import PythonOperator


def create_dag(dag_id, schedule, number):
    def hello_world_py(*args):
        print('Hello World {}'.format(number))

    dag = DAG(dag_id, schedule_interval=schedule, default_args={'start_date': datetime(2018, 1, 1)})
    with dag:
        PythonOperator(task_id='hello_world', python_callable=hello_world_py)
    return dag


for n in range(1, 5):
    dag_id = 'generated_{}'.format(n)
    globals()[dag_id] = create_dag(dag_id, '@daily', n)
