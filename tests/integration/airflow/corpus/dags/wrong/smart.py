from airflow import DAG
from airflow.sensors.smart_sensor import SmartSensorOperator

dag = DAG("smart")
