from datetime import datetime, timedelta

from airflow import DAG
from airflow.operators.bash import BashOperator
from airflow.operators.dummy import DummyOperator
from airflow.operators.python import PythonOperator

with DAG(
    dag_id="classic_2",
    schedule_interval="0 6 * * 1-5",
    start_date=datetime(2021, 1, 1),
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
) as dag:
    begin = DummyOperator(task_id="begin")
    run = BashOperator(task_id="run", bash_command="echo {{ data_interval_start }}")
    call = PythonOperator(task_id="call", python_callable=lambda ds, **_: print(ds))
    begin >> [run, call]
