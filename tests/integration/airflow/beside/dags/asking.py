"""Questions to people."""

from datetime import timedelta

from airflow.providers.standard.operators.hitl import (
    ApprovalOperator,
    HITLBranchOperator,
    HITLEntryOperator,
    HITLOperator,
)
from airflow.sdk import DAG, Param, task

with DAG("asking", schedule=None):
    approve = ApprovalOperator(
        task_id="approve", subject="Deploy {{ dag.dag_id }}?", body="**Now**"
    )
    refuse = ApprovalOperator(task_id="refuse", subject="Delete all?")

    @task
    def deployed(ti=None):
        return ti.xcom_pull(task_ids="approve")["chosen_options"]

    @task
    def deleted():
        return True

    approve >> deployed()
    refuse >> deleted()

    entry = HITLEntryOperator(
        task_id="entry", subject="How many?", params={"rows": Param(3, type="integer", minimum=1)}
    )
    several = HITLOperator(
        task_id="several", subject="Which?", options=["a", "b", "c"], multiple=True
    )
    HITLBranchOperator(task_id="branch", subject="Where to?", options=["left", "right"]) >> [
        task(task_id="left")(lambda: "l")(),
        task(task_id="right")(lambda: "r")(),
    ]
    late = HITLOperator(
        task_id="late", subject="Late?", options=["yes", "no"], defaults="no",
        response_timeout=timedelta(seconds=5),
    )  # fmt: skip
    never = HITLOperator(
        task_id="never", subject="Never?", options=["yes"],
        response_timeout=timedelta(seconds=5),
    )  # fmt: skip
