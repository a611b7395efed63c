from airflow import DAG
from airflow.models import DagRun

last = DagRun.find(dag_id="classic_3")
dag = DAG("database_find", schedule=None)
