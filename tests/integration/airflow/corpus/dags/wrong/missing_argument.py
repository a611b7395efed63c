from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG("missing_argument", schedule=None):
    BashOperator(task_id="a")
