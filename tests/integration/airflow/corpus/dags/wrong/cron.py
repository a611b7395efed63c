from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG("cron", schedule="every other day"):
    EmptyOperator(task_id="a")
