from airflow.hooks.base import BaseHook
from airflow import DAG

uri = BaseHook.get_connection("no_such_connection").get_uri()
dag = DAG("missing_connection", schedule=None)
