"""Mapped groups over a result: what ends as a whole, and what ends at each index."""

import pendulum
from airflow.exceptions import AirflowFailException, AirflowSkipException
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task, task_group

RULES = (
    "all_success", "all_failed", "all_done", "one_success", "one_failed", "none_failed",
    "none_failed_min_one_success", "none_skipped", "one_done", "all_skipped",
    "all_done_min_one_success",
)  # fmt: skip
MIXES = {"ss": ["a", "b"], "sk": ["a", "skip"], "sf": ["a", "fail"], "kk": ["skip", "skip"]}
OPTIONS = {"schedule": None, "start_date": pendulum.datetime(2026, 1, 1)}


@task
def values(found):
    return found


@task
def bad():
    raise AirflowFailException


@task
def part(x):
    if x == "skip":
        raise AirflowSkipException
    if x == "fail":
        raise AirflowFailException
    return x


with DAG("grouped", **OPTIONS):
    for name, found in MIXES.items():

        @task_group(group_id=name)
        def each(x):
            first = part.override(task_id="first")(x)
            for rule in RULES:
                first >> EmptyOperator(task_id=rule, trigger_rule=rule)

        each.expand(x=values.override(task_id=f"values_{name}")(found))

with DAG("grouped_whole", **OPTIONS):
    good, failed = EmptyOperator(task_id="good"), bad()
    ways = {"skipped": (good, "one_failed", "sk"), "failed": (failed, "all_success", "sf")}
    for name, (outside, first_rule, mix) in ways.items():

        @task_group(group_id=name)
        def whole(x):
            first = EmptyOperator(task_id="first", trigger_rule=first_rule)
            second = part.override(task_id="second", trigger_rule="all_done")(x)
            outside >> first >> second
            for rule in RULES:
                third = EmptyOperator(task_id=rule, trigger_rule=rule)
                [first, second] >> third
                third >> EmptyOperator(task_id=f"{rule}_after")

        found = values.override(task_id=f"values_{name}")(MIXES[mix])
        whole.expand(x=found)
