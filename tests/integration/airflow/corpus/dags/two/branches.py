from datetime import datetime

from airflow import DAG
from airflow.operators.datetime import BranchDateTimeOperator
from airflow.operators.empty import EmptyOperator
from airflow.operators.latest_only import LatestOnlyOperator
from airflow.operators.python import BranchPythonOperator, ShortCircuitOperator
from airflow.operators.weekday import BranchDayOfWeekOperator

with DAG("branches_2", schedule="@daily", start_date=datetime(2021, 1, 1), catchup=False):
    yes, no = EmptyOperator(task_id="yes"), EmptyOperator(task_id="no")
    BranchDayOfWeekOperator(
        task_id="day", follow_task_ids_if_true="yes", follow_task_ids_if_false="no",
        week_day="Monday", use_task_execution_day=True) >> [yes, no]
    BranchDateTimeOperator(
        task_id="moment", follow_task_ids_if_true=["yes"], follow_task_ids_if_false=["no"],
        target_lower=datetime(2020, 1, 1), target_upper=datetime(2030, 1, 1),
        use_task_execution_date=True) >> [yes, no]
    BranchPythonOperator(task_id="python", python_callable=lambda: "yes") >> [yes, no]
    ShortCircuitOperator(task_id="circuit", python_callable=lambda: True, ignore_downstream_trigger_rules=False) >> yes
    LatestOnlyOperator(task_id="latest") >> no
