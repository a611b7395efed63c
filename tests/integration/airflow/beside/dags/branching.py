"""Branches, short circuits and skips, and what joins after them."""

import pendulum
from airflow.exceptions import AirflowFailException, AirflowSkipException
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import BranchPythonOperator, ShortCircuitOperator
from airflow.sdk import DAG, BaseOperator, Label, TaskGroup, task
from airflow.sdk.bases.skipmixin import SkipMixin


class SkipsFar(BaseOperator, SkipMixin):
    """Skips a task that does not follow it directly."""

    def execute(self, context):
        self.skip(context["ti"], [self.dag.get_task("far")])
        return "skipped far"


with DAG("branching", schedule=None, start_date=pendulum.datetime(2026, 1, 1)):

    @task
    def value(x=1):
        return {"x": x}

    @task
    def skips():
        raise AirflowSkipException("not today")

    @task(retries=2)
    def fails():
        raise AirflowFailException("for good")

    branch = BranchPythonOperator(task_id="branch", python_callable=lambda: ["left", "grouped.in"])
    left, right = EmptyOperator(task_id="left"), value.override(task_id="right")(2)
    with TaskGroup("grouped"):
        first = EmptyOperator(task_id="in")
        last = EmptyOperator(task_id="out")
        first >> Label("on") >> last
    join = EmptyOperator(task_id="join", trigger_rule="none_failed_min_one_success")
    direct = EmptyOperator(task_id="direct")
    branch >> [left, right, first, direct]
    [left, right, last] >> join
    branch >> join
    left >> direct

    nothing = BranchPythonOperator(task_id="nothing", python_callable=lambda: None)
    (
        nothing
        >> EmptyOperator(task_id="unchosen")
        >> EmptyOperator(task_id="late", trigger_rule="all_done")
    )

    for name, soft in (("hard", True), ("soft", False)):
        stop = ShortCircuitOperator(
            task_id=name, python_callable=lambda: False, ignore_downstream_trigger_rules=soft
        )
        near = EmptyOperator(task_id=f"{name}_near")
        end = EmptyOperator(task_id=f"{name}_end", trigger_rule="all_done")
        stop >> near >> end

    on = ShortCircuitOperator(task_id="on", python_callable=lambda: "yes")
    on >> EmptyOperator(task_id="goes_on")

    far, near = EmptyOperator(task_id="far"), EmptyOperator(task_id="near")
    SkipsFar(task_id="skips_far") >> near >> far >> EmptyOperator(task_id="after_far")

    [skips(), fails()] >> EmptyOperator(task_id="any", trigger_rule="one_failed")
