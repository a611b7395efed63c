import asyncio
from datetime import datetime, timedelta

from airflow import DAG
from airflow.models import BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent
from airflow.triggers.temporal import TimeDeltaTrigger


class Tick(BaseTrigger):
    def serialize(self):
        return ("two.deferrable.Tick", {})

    async def run(self):
        await asyncio.sleep(1)
        yield TriggerEvent("done")


class WaitOneHour(BaseOperator):
    def execute(self, context):
        self.defer(trigger=TimeDeltaTrigger(timedelta(hours=1)), method_name="execute_complete")

    def execute_complete(self, context, event=None):
        return event


with DAG("deferrable_2", schedule="@daily", start_date=datetime(2022, 1, 1)):
    WaitOneHour(task_id="wait")
