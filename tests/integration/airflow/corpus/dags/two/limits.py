from datetime import datetime, timedelta

from airflow import DAG
from airflow.operators.bash import BashOperator
from airflow.utils.weight_rule import WeightRule

with DAG(
    "limits_2", schedule="@hourly", start_date=datetime(2021, 1, 1), max_active_tasks=4, max_active_runs=2,
    dagrun_timeout=timedelta(hours=2), is_paused_upon_creation=True, fail_stop=True, doc_md="# Limits",
    access_control={"role": {"can_read"}},
):
    BashOperator(
        task_id="w", bash_command="true", pool="db", pool_slots=2, priority_weight=10,
        weight_rule=WeightRule.ABSOLUTE, execution_timeout=timedelta(minutes=10), retries=3,
        retry_exponential_backoff=True, max_retry_delay=timedelta(hours=1), max_active_tis_per_dag=1,
        queue="big", run_as_user="etl", executor_config={"KubernetesExecutor": {"image": "x"}})
