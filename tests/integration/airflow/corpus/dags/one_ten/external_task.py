from datetime import datetime, timedelta

from airflow import DAG
from airflow.operators.dummy_operator import DummyOperator
from airflow.sensors.external_task_sensor import ExternalTaskSensor

with DAG('external_1_10', start_date=datetime(2019, 1, 1), schedule_interval='30 4 * * *') as dag:
    wait = ExternalTaskSensor(
        task_id='wait_for_orders',
        external_dag_id='hello_1_10',
        external_task_id='sleep',
        execution_delta=timedelta(hours=4, minutes=30),
        timeout=3600,
        mode='reschedule',
    )
    done = DummyOperator(task_id='done')
    wait >> done
