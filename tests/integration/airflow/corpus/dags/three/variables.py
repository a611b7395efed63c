from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Variable

for table in Variable.get("tables").split(","):
    with DAG(f"variables_3_{table}", schedule="@daily"):
        EmptyOperator(task_id="a")
