"""All trigger rules over all mixes of ends, and setups and teardowns."""

import pendulum
from airflow.exceptions import AirflowSkipException
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, setup, task, teardown

RULES = (
    "all_success", "all_failed", "all_done", "all_done_min_one_success", "one_success",
    "one_failed", "one_done", "none_failed", "none_failed_min_one_success", "none_skipped",
    "all_skipped", "always",
)  # fmt: skip

with DAG("rules", schedule=None, start_date=pendulum.datetime(2026, 1, 1)):

    @task
    def good():
        return 1

    @task
    def bad():
        raise RuntimeError("bad")

    @task
    def skip():
        raise AirflowSkipException

    ends = {"g": good(), "b": bad(), "s": skip()}
    for rule in RULES:
        for mix in ("g", "b", "s", "gb", "gs", "bs", "gbs"):
            [ends[each] for each in mix] >> EmptyOperator(
                task_id=f"{rule}__{mix}", trigger_rule=rule
            )

with DAG("setups", schedule=None, start_date=pendulum.datetime(2026, 1, 1)):

    @setup
    def make():
        return 1

    @setup
    def make_bad():
        raise RuntimeError("setup")

    @setup
    def make_skipped():
        raise AirflowSkipException

    @teardown
    def drop():
        return 2

    @teardown(on_failure_fail_dagrun=True)
    def drop_bad():
        raise RuntimeError("teardown")

    @task
    def work():
        return 3

    @task
    def work_bad():
        raise RuntimeError("work")

    for number, (first, middle) in enumerate(
        [(make, work), (make, work_bad), (make_bad, work), (make_skipped, work)]
    ):
        made = first.override(task_id=f"make_{number}")()
        done = middle.override(task_id=f"work_{number}")()
        later = EmptyOperator(task_id=f"later_{number}", trigger_rule="all_done")
        gone = drop.override(task_id=f"drop_{number}")()
        made >> done >> later >> gone
        made >> gone
        gone >> EmptyOperator(task_id=f"after_{number}")
    work.override(task_id="before_bad")() >> drop_bad()

with DAG("hidden", schedule=None, start_date=pendulum.datetime(2026, 1, 1)):
    # A teardown that decides the state of the run hides the failure before it.
    work_bad.override(task_id="work")() >> drop.override(on_failure_fail_dagrun=True)()

with DAG("only_teardowns", schedule=None, start_date=pendulum.datetime(2026, 1, 1)):

    @teardown
    def lone():
        raise RuntimeError("teardown")

    lone()
