from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TaskGroup, XComArg, chain_linear, cross_downstream, literal

with DAG("edge_cases_3", schedule="@continuous", max_active_runs=1):
    tasks = [EmptyOperator(task_id=f"t{n}", task_display_name=f"T {n}") for n in range(4)]
    cross_downstream(tasks[:2], tasks[2:])
    with TaskGroup("empty_group"):
        pass
    chain_linear(tasks[3], EmptyOperator(task_id="last"))
assert XComArg and literal

with DAG("once_3", schedule="@once"):
    EmptyOperator(task_id="a", doc_md="x", owner="ann", retries=1, retry_delay=30)
