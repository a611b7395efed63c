from datetime import datetime

from airflow import DAG
from airflow.operators.bash import BashOperator

with DAG("main_guard_2", schedule="@daily", start_date=datetime(2022, 1, 1)) as dag:
    BashOperator(task_id="w", bash_command="true")

if __name__ == "__main__":
    dag.cli()
