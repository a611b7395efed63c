from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.latest_only import LatestOnlyOperator
from airflow.sdk import DAG, TriggerRule, task

with DAG("branching_3", schedule="@daily"):

    @task.branch
    def choose():
        return ["left"]

    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def stop():
        return False

    left, right = EmptyOperator(task_id="left"), EmptyOperator(task_id="right")
    join = EmptyOperator(task_id="join", trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)
    LatestOnlyOperator(task_id="latest") >> choose() >> [left, right] >> join >> stop()
