from airflow import DAG
from airflow.www.app import csrf

dag = DAG("www")
