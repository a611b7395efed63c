import os

from airflow import DAG

os._exit(3)
dag = DAG("exits")
