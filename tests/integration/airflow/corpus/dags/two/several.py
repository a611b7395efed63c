from datetime import datetime

from airflow import DAG
from airflow.operators.bash import BashOperator

with DAG("several_a", start_date=datetime(2021, 1, 1), schedule="@daily"):
    BashOperator(task_id="one", bash_command="true")

with DAG("several_b", start_date=datetime(2021, 1, 1), schedule="@weekly", max_active_runs=1):
    BashOperator(task_id="one", bash_command="true", depends_on_past=True, wait_for_downstream=True)

with DAG("several_hidden", start_date=datetime(2021, 1, 1), schedule=None, auto_register=False):
    BashOperator(task_id="one", bash_command="true")
