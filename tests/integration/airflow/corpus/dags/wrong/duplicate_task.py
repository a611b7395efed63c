from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG("duplicate_task", schedule=None):
    EmptyOperator(task_id="a")
    EmptyOperator(task_id="a")
