"""Deferral, by a trigger of the team's and by the clock, sensors, connections and variables."""

import asyncio
import os
from datetime import UTC, datetime, timedelta

from airflow.providers.standard.sensors.filesystem import FileSensor
from airflow.providers.standard.sensors.python import PythonSensor
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseHook, BaseOperator, Variable, task
from airflow.triggers.base import BaseTrigger, TriggerEvent


class Tick(BaseTrigger):
    def __init__(self, n):
        super().__init__()
        self.n = n

    def serialize(self):
        return "waiting.Tick", {"n": self.n}

    async def run(self):
        await asyncio.sleep(0)
        yield TriggerEvent({"n": self.n, "at": datetime(2026, 1, 1, tzinfo=UTC)})


class Blind(BaseTrigger):
    def __init__(self):
        super().__init__()

    def serialize(self):
        return "waiting.Blind", {}

    async def run(self):
        raise ValueError("it cannot be seen")
        yield


class Twice(BaseOperator):
    def execute(self, context):
        context["ti"].xcom_push(key="before", value="kept")
        self.defer(trigger=Tick(4), method_name="by_clock")

    def by_clock(self, context, event):
        trigger = TimeDeltaTrigger(timedelta(milliseconds=50))
        self.defer(trigger=trigger, method_name="done", kwargs={"n": event["n"]})

    def done(self, context, event, n):
        before = context["ti"].xcom_pull(task_ids=self.task_id, key="before")
        return [before, n, event.year > 2000]


class Unseen(BaseOperator):
    def execute(self, context):
        self.defer(trigger=Blind(), method_name="never")


class Late(BaseOperator):
    def execute(self, context):
        trigger = TimeDeltaTrigger(timedelta(hours=1))
        self.defer(trigger=trigger, method_name="never", timeout=timedelta(milliseconds=50))


def third_look():
    looks = os.environ["LOOKS"]
    with open(looks, "a") as file:
        file.write("x")
    return os.path.getsize(looks) >= 3


with DAG("waiting", schedule=None, start_date=datetime(2026, 1, 1)):
    twice = Twice(task_id="twice")
    unseen = Unseen(task_id="unseen")
    late = Late(task_id="late")
    sensor = PythonSensor(
        task_id="sensor", python_callable=third_look, mode="reschedule", poke_interval=0.05
    )
    file = FileSensor(task_id="file", filepath=os.__file__, deferrable=True, poke_interval=0.05)

    @task(trigger_rule="all_done")
    def values():
        return [Variable.get("region"), BaseHook.get_connection("sales").password]

    [twice, unseen, sensor, file] >> values()
