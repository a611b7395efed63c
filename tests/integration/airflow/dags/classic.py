"""Operators, TaskFlow, branches, retries, mapping: what Airflow's tutorials show."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.exceptions import AirflowFailException
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import (
    BranchPythonOperator,
    PythonOperator,
    ShortCircuitOperator,
)
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, Asset, AssetAlias, dag, setup, task, task_group, teardown
from airflow.sdk.exceptions import AirflowSkipException

orders = Asset("s3://lake/orders")


def greet(name, ti, **context):
    print("hello", name, context["ds"], context["params"]["day"])
    ti.xcom_push(key="greeting", value=f"hello {name}")
    return {"n": 3}


def load(ti, outlet_events):
    print("pulled", ti.xcom_pull(task_ids="greet", key="greeting"))
    outlet_events[orders].extra = {"rows": 7}


with DAG(
    "classic",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    tags=["etl"],
    params={"day": "monday"},
    default_args={"owner": "ann"},
) as classic:
    start = PythonOperator(task_id="greet", python_callable=greet, op_args=["ann"])
    bash = BashOperator(
        task_id="bash",
        bash_command="echo {{ ti.xcom_pull(task_ids='greet')['n'] }} rows of {{ params.day }}",
    )
    branch = BranchPythonOperator(task_id="branch", python_callable=lambda: "left")
    left = EmptyOperator(task_id="left")
    right = EmptyOperator(task_id="right")
    join = PythonOperator(
        task_id="join",
        python_callable=load,
        trigger_rule="none_failed_min_one_success",
        outlets=[orders],
    )
    start >> bash >> branch >> [left, right] >> join


@dag(schedule=[orders], start_date=datetime(2026, 1, 1))
def consumer():
    @task
    def events(triggering_asset_events=None):
        return [each.extra["rows"] for found in triggering_asset_events.values() for each in found]

    @task
    def double(x):
        return 2 * x

    @task
    def total(xs):
        return sum(xs)

    total(double.expand(x=events()))


consumer()


@dag(schedule=None, start_date=datetime(2026, 1, 1))
def endings():
    @task(retries=1, retry_delay=timedelta(seconds=0.1))
    def fails_once(ti=None):
        if ti.try_number < 2:
            raise ValueError("not yet")
        return ti.try_number

    @task
    def skips():
        raise AirflowSkipException("nothing today")

    @task(retries=3, retry_delay=timedelta(hours=1))
    def fails():
        raise AirflowFailException("for good")

    stop = ShortCircuitOperator(task_id="stop", python_callable=lambda: False)
    never = EmptyOperator(task_id="never")
    last = EmptyOperator(task_id="last", trigger_rule="all_done")
    once = fails_once()
    once >> [skips(), fails()] >> last
    once >> stop >> never


endings()


@dag(schedule=None, start_date=datetime(2026, 1, 1))
def groups():
    @task
    def numbers():
        return [1, 2, 3]

    @task_group
    def each(n):
        @task
        def double(n):
            return 2 * n

        @task
        def increment(n):
            return n + 1

        return increment(double(n))

    @task
    def total(xs):
        return sum(xs)

    @setup
    def make():
        return "made"

    @teardown
    def clean():
        return "cleaned"

    made, cleaned = make(), clean()
    made >> total(each.expand(n=numbers())) >> cleaned
    made >> cleaned


groups()


with DAG("caller", schedule=None, start_date=datetime(2026, 1, 1)) as caller:
    TriggerDagRunOperator(
        task_id="call", trigger_dag_id="called", trigger_run_id="one",
        conf={"rows": 5, "free": [1]}, logical_date=datetime(2026, 3, 4, tzinfo=UTC),
    )  # fmt: skip


@dag(schedule=None, start_date=datetime(2026, 1, 1), params={"rows": 1})
def called():
    @task
    def given(params=None, dag_run=None):
        return [params["rows"], dag_run.conf["free"]]

    given()


called()


def told(context):
    print(
        "told", context["dag_run"].dag_id, context["ti"].task_id, context["reason"], context["ds"]
    )


with DAG(
    "tells", schedule=None, start_date=datetime(2026, 1, 1), on_failure_callback=[told]
) as tells:
    EmptyOperator(task_id="begins") >> PythonOperator(
        task_id="fails", python_callable=lambda: 1 / 0, retries=0
    )

with DAG("by_alias", schedule=None, start_date=datetime(2026, 1, 1)) as by_alias:

    @task(outlets=[AssetAlias("daily")])
    def emit(*, outlet_events):
        outlet_events[AssetAlias("daily")].add(Asset("s3://lake/monday"), extra={"n": 2})

    emit()

with DAG("of_alias", schedule=AssetAlias("daily"), start_date=datetime(2026, 1, 1)) as of_alias:

    @task
    def numbers(triggering_asset_events=None):
        found = triggering_asset_events[AssetAlias("daily")]
        return [event.extra["n"] for event in found]

    numbers()


def sleeps():
    print("begun", flush=True)
    time.sleep(600)


class Killed(PythonOperator):
    def on_kill(self):
        Path(os.environ["KILLED"]).touch()


with DAG("endless", schedule=None, start_date=datetime(2026, 1, 1)) as endless:
    Killed(task_id="sleeps", python_callable=sleeps)
