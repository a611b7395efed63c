"""A DAG whose deadline passes, one that hears of it, and one in the queue."""

import time
from datetime import timedelta
from pathlib import Path

from pubsubflow import Context, Dataset, Deadline, dag, task


def say(ctx):
    print(f"{ctx.kind} {ctx.alert is not None} {ctx.text}")


@dag(
    params={"hold": ""},
    max_active_runs=1,
    deadlines=[
        Deadline(after=timedelta(seconds=1), notify=say),
        Deadline(after=timedelta(hours=1), since="logical_time", notify=say),
    ],
)
def late():
    @task
    def wait(ctx: Context):
        hold = Path(ctx.run.params["hold"])
        while hold.exists():
            time.sleep(0.02)

    wait()


@dag(schedule=Dataset.match("pubsubflow://alerts/deadline/*"))
def hears():
    @task
    def read(ctx: Context):
        (event,) = ctx.events.all
        return {"state": event.extra["state"], "run": event.extra["run_id"]}

    read()
