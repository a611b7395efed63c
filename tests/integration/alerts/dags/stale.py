"""A dataset that is to have events, and a DAG that hears of it."""

from datetime import timedelta

from pubsubflow import Context, Dataset, dag, task


def say(ctx):
    print(f"{ctx.kind} {ctx.dataset} {ctx.since is None} {ctx.alert is not None} {ctx.text}")


silent = Dataset("x://silent", fresh=timedelta(seconds=0.5), notify=say)


@dag(schedule=Dataset.match("pubsubflow://alerts/freshness/*"))
def hears_of_stale():
    @task
    def read(ctx: Context):
        (event,) = ctx.events.all
        return [event.extra["alert"], event.extra["state"]]

    read()
