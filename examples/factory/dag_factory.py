"""A factory: one DAG for each of 1,000 tables."""

from datetime import datetime

from pubsubflow import DAG, BashOperator, EmptyOperator

TABLES = [f"table_{number:04}" for number in range(1000)]


def create_dag(table):
    default_args = {"owner": "data", "start_date": datetime(2022, 5, 1), "retries": 1}
    with DAG(
        f"load_{table}",
        default_args=default_args,
        schedule="@daily",
        catchup=False,
        tags=["factory"],
    ) as dag:
        extract = BashOperator(task_id="extract", bash_command=f"echo extracting {table}")
        load = BashOperator(task_id="load", bash_command=f"echo {table} of {{{{ ds }}}}")
        extract >> load >> EmptyOperator(task_id="done")
    return dag


for table in TABLES:
    globals()[f"load_{table}"] = create_dag(table)
