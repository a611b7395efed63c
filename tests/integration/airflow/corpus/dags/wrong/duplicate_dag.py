from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG("classic_3", schedule=None):
    EmptyOperator(task_id="a")
