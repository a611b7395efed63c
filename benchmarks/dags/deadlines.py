"""DAG of the scenario `deadlines`: one run of it works for an hour, and all others wait for it."""

from datetime import timedelta

from pubsubflow import Context, Deadline, dag, task


@dag(
    max_active_runs=1,
    deadlines=[Deadline(after=timedelta(milliseconds=1), since="logical_time")],
)
def armed():
    """Runs whose deadlines pass while they wait in the queue."""

    @task
    async def hold(ctx: Context) -> None:
        await ctx.sleep(timedelta(hours=1))

    hold()
