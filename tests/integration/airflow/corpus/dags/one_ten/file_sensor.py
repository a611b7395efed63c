from datetime import datetime

from airflow import DAG
from airflow.contrib.sensors.file_sensor import FileSensor
from airflow.operators.dummy_operator import DummyOperator

dag = DAG('file_sensor_1_10', start_date=datetime(2018, 1, 1), schedule_interval='@daily')
wait = FileSensor(task_id='wait', filepath='/data/in.csv', fs_conn_id='fs_default', poke_interval=30, dag=dag)
wait >> DummyOperator(task_id='go', dag=dag)
