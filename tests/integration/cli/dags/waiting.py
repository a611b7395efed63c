"""DAGs that wait, and one that is hard to please."""

from datetime import UTC, datetime, timedelta

from pubsubflow import Context, Cron, Dataset, dag, partitioned, roll_up, task

left = Dataset("s3://waiting/left")
right = Dataset("s3://waiting/right")
hours = Dataset("s3://waiting/hours")
orders = Dataset("s3://waiting/orders")


@dag(schedule=left.where("event.extra.rows > 0") & right.at_least(2))
def waits():
    @task
    def work() -> None: ...

    work()


@dag(schedule=partitioned(hours, by=roll_up(to="day", of="hour")))
def daily():
    @task
    def work() -> None: ...

    work()


@dag(schedule=Cron("0 4 * * *"), start=datetime(2026, 1, 1, tzinfo=UTC))
def nightly():
    @task
    def work() -> None: ...

    work()


@dag(schedule=orders, params={"rows": 1}, params_from={"rows": "event.extra.rows"})
def fussy():
    @task
    def work(ctx: Context) -> int:
        return ctx.run.params["rows"]

    work()


@dag
def lingers():
    @task
    async def rest(ctx: Context) -> None:
        await ctx.sleep(timedelta(hours=1))

    rest()
