"""Limits of time, attempts after a delay that grows, and a backend for XComs of a team's own."""

import time
from datetime import timedelta

import pendulum
from airflow.exceptions import AirflowFailException
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task

OPTIONS = {"schedule": None, "start_date": pendulum.datetime(2026, 1, 1)}
SOON = timedelta(milliseconds=300)
LONG = 60

with DAG("limits", **OPTIONS):

    @task(execution_timeout=SOON)
    def slow():
        time.sleep(LONG)

    @task(execution_timeout=timedelta(seconds=LONG))
    def quick():
        return 1

    @task(execution_timeout=SOON, retries=1, retry_delay=timedelta(0))
    def slow_once(ti=None):
        if ti.try_number == 1:
            time.sleep(LONG)
        return ti.try_number

    @task(execution_timeout=SOON)
    def cleans():
        try:
            time.sleep(LONG)
        finally:
            print("cleaned")

    @task.sensor(poke_interval=0.1, timeout=0.3)
    def never():
        return False

    @task.sensor(poke_interval=0.1, timeout=0.3, soft_fail=True)
    def given_up():
        return False

    @task.sensor(poke_interval=0.1, timeout=0.3, retries=3, retry_delay=timedelta(0))
    def never_again():
        return False

    ends = [slow(), quick(), slow_once(), cleans(), never(), given_up(), never_again()]
    for each in ends:
        name = each.operator.task_id
        each >> EmptyOperator(task_id=f"{name}_all_success")
        each >> EmptyOperator(task_id=f"{name}_all_done", trigger_rule="all_done")

with DAG("attempts", **OPTIONS):

    @task(retries=2, retry_delay=timedelta(seconds=0.2), retry_exponential_backoff=True)
    def third(ti=None):
        if ti.try_number < 3:
            raise RuntimeError("not yet")
        return [ti.try_number, ti.max_tries]

    @task(retries=1, retry_delay=timedelta(0))
    def fails(ti=None):
        raise RuntimeError(ti.try_number)

    @task(retries=5, retry_delay=timedelta(0))
    def fails_for_good():
        raise AirflowFailException

    third(), fails(), fails_for_good()

with DAG("backend", **OPTIONS):

    @task
    def first(ti=None):
        ti.xcom_push("more", [1, None])
        return {"rows": 3}

    @task
    def second(found, ti=None):
        return [found, ti.xcom_pull(task_ids="first", key="more")]

    @task
    def listed():
        return [1, 2]

    @task
    def each(x):
        return x * 10

    @task
    def total(values):
        return sum(values)

    second(first())
    total(each.expand(x=listed()))
