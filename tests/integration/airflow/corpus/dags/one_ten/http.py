import json
from datetime import datetime

from airflow import DAG
from airflow.operators.http_operator import SimpleHttpOperator
from airflow.sensors.http_sensor import HttpSensor

dag = DAG('http_1_10', start_date=datetime(2018, 1, 1), schedule_interval='@daily')
sensor = HttpSensor(task_id='sensor', http_conn_id='http_default', endpoint='', dag=dag)
post = SimpleHttpOperator(
    task_id='post', endpoint='api/v1.0/nodes', data=json.dumps({"priority": 5}), dag=dag)
sensor >> post
