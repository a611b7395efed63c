from datetime import datetime

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

for name in ("without_owner", "policy_breaks", "with_owner"):
    with DAG(name, schedule=None, start_date=datetime(2025, 1, 1)):
        EmptyOperator(task_id="a")
