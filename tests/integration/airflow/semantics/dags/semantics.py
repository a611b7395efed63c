"""Watchers, triggers before code, deadlines, retries after waits, people, failing fast, resets."""

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLEntryOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.providers.standard.sensors.external_task import ExternalTaskSensor
from airflow.sdk import (
    DAG,
    Asset,
    AssetWatcher,
    AsyncCallback,
    BaseOperator,
    DeadlineAlert,
    DeadlineReference,
    Param,
    setup,
    task,
    teardown,
)
from airflow.sdk.execution_time.comms import TriggerDagRun
from airflow.triggers.base import BaseEventTrigger, BaseTrigger, StartTriggerArgs, TriggerEvent

OPTIONS = {"schedule": None, "start_date": datetime(2026, 1, 1)}
FOLDER = Path(os.environ["SEMANTICS"])


class Seen(BaseEventTrigger):
    """Sees a file of numbers, one event a line."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def serialize(self):
        return "semantics.Seen", {"path": self.path}

    async def run(self):
        seen = 0
        while True:
            lines = Path(self.path).read_text().split() if Path(self.path).exists() else []
            for line in lines[seen:]:
                yield TriggerEvent({"n": int(line)})
            seen = len(lines)
            await asyncio.sleep(0.1)


class Once(BaseTrigger):
    def __init__(self, n=0):
        super().__init__()
        self.n = n

    def serialize(self):
        return "semantics.Once", {"n": self.n}

    async def run(self):
        yield TriggerEvent(self.n)


watched = Asset("file:///semantics/watched", watchers=[AssetWatcher("w", Seen(str(FOLDER / "in")))])

with DAG("on_watched", schedule=[watched]):

    @task
    def numbers(triggering_asset_events=None):
        (events,) = triggering_asset_events.values()
        return [each.extra for each in events]

    numbers()


class FromTrigger(BaseOperator):
    start_from_trigger = True
    start_trigger_args = StartTriggerArgs(
        trigger_cls="semantics.Once",
        trigger_kwargs={"n": 7},
        next_method="resumed",
        next_kwargs=None,
        timeout=None,
    )

    def execute(self, context):
        raise AssertionError("its code runs after the trigger alone")

    def resumed(self, context, event):
        return [event, context["ti"].try_number]


with DAG("from_trigger", **OPTIONS):
    FromTrigger(task_id="waits")


class FailsOnce(BaseOperator):
    def execute(self, context):
        self.defer(trigger=Once(context["ti"].try_number), method_name="resumed")

    def resumed(self, context, event):
        if context["ti"].try_number == 1:
            raise RuntimeError("the first time")
        return event


with DAG("fails_after_wait", **OPTIONS):
    FailsOnce(task_id="again", retries=1, retry_delay=timedelta(0))


async def missed(name, context):
    print("missed", name, context["dag_run"].dag_id)


with DAG(
    "late",
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(seconds=1),
        callback=AsyncCallback(missed, {"name": "the deadline"}),
    ),
    **OPTIONS,
):

    @task
    def waits():
        while not (FOLDER / "go").exists():
            time.sleep(0.05)

    waits()

with DAG("people", **OPTIONS):
    asked = ApprovalOperator(task_id="asked", subject="Deploy the rows?")
    given = HITLEntryOperator(
        task_id="given", subject="How many rows?", params={"rows": Param(1, type="integer")}
    )

    @task
    def told(answer):
        return [answer["chosen_options"], answer["params_input"]]

    asked >> given >> told(given.output)

with DAG("fast", fail_fast=True, **OPTIONS):

    @setup
    def make():
        return 1

    @task
    def slow():
        (FOLDER / "slow").touch()
        time.sleep(600)

    @task
    def bad():
        while not (FOLDER / "slow").exists():
            time.sleep(0.05)
        # Its start is known by then: a worker reports that after a moment.
        time.sleep(2)
        raise RuntimeError("bad")

    @task
    def after():
        return 2

    @teardown
    def drop():
        return 3

    made, long, gone = make(), slow(), drop()
    made >> [long, bad()] >> after() >> gone
    made >> gone

with DAG("counted", **OPTIONS):

    @task
    def count(params=None, ti=None, dag_run=None):
        with (FOLDER / "counted").open("a") as file:
            file.write("x")
        return dag_run.conf

    count()

with DAG("resets", **OPTIONS):
    options = {"trigger_dag_id": "counted", "trigger_run_id": "one", "wait_for_completion": True}
    first = TriggerDagRunOperator(task_id="first", conf={"n": 1}, poke_interval=0.2, **options)
    again = TriggerDagRunOperator(
        task_id="again", conf={"n": 2}, poke_interval=0.2, reset_dag_run=True, **options
    )
    deferred = TriggerDagRunOperator(
        task_id="deferred", reset_dag_run=True, deferrable=True, **options
    )
    dated = TriggerDagRunOperator(
        task_id="dated",
        trigger_dag_id="counted",
        logical_date=datetime(2020, 1, 1, tzinfo=UTC),
        wait_for_completion=True,
        poke_interval=0.2,
    )
    first >> again >> deferred >> dated
    # Airflow 3.2 leaves it out, and starts the run at once.
    if "run_after" in TriggerDagRun.model_fields:
        dated >> TriggerDagRunOperator(
            task_id="later", trigger_dag_id="counted", run_after=datetime(2100, 1, 1, tzinfo=UTC)
        )

with DAG("at_its_date", **OPTIONS):

    @task(retries=1, retry_delay=0)
    def moment(ti=None):
        if ti.try_number == 1:
            raise RuntimeError("once")
        return datetime.now(UTC).isoformat()

    moment() >> EmptyOperator(task_id="end")

with DAG("external", **OPTIONS):
    same = {"execution_date_fn": lambda logical_date, **_: datetime(2020, 1, 1, tzinfo=UTC)}
    ExternalTaskSensor(
        task_id="run", external_dag_id="counted", deferrable=True, poll_interval=0.2, **same
    )
    ExternalTaskSensor(
        task_id="task",
        external_dag_id="counted",
        external_task_id="count",
        deferrable=True,
        poll_interval=0.2,
        **same,
    )
