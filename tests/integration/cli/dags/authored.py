"""What people bring from Airflow, on a running daemon."""

from datetime import date

from pubsubflow import (
    DAG,
    Context,
    Dataset,
    EmptyOperator,
    Fail,
    Param,
    Retry,
    RetryAfter,
    Skip,
    dag,
    task,
    task_group,
)

ledger = Dataset("s3://lake/ledger")


@dag(params={"mode": Param("fast", enum=["fast", "full"], title="How")})
def with_params(day: date, rows: int = 3):
    @task
    def show(day: date, rows: int, ctx: Context) -> list:
        return [day.isoformat(), rows, ctx.run.params["mode"]]

    show(day, rows)


with DAG("with_retries", default_args={"owner": "data", "email": "a@example.org"}):

    @task(retries=Retry(2, on=(TimeoutError,), never=(ConnectionError,)))
    def refused():
        raise ValueError("no such table")

    @task(retries=Retry(9, on=(TimeoutError,)), timeout=0.3)
    def slow(ctx: Context):
        while ctx.attempt < 2:
            pass

    @task(retries=1)
    def polite(ctx: Context):
        if ctx.attempt == 1:
            raise RetryAfter(0.01, "the quota is used up")
        return ctx.attempt

    @task(retries=1)
    def nothing():
        raise Skip("nothing new")

    @task(retries=1)
    def hopeless():
        raise Fail("the key is not valid")

    refused()
    slow()
    polite()
    nothing()
    hopeless()


with DAG("with_teardown", params={"fails": True}):

    @task
    def act(name: str, ctx: Context) -> str:
        if name == "work" and ctx.run.params["fails"]:
            raise Fail(name)
        return name

    made = act.override(task_id="make")("make")
    with act.override(task_id="drop")("drop").as_teardown(setups=made):

        @task.branch
        def choose() -> str:
            return "used"

        with task_group("used") as used:
            act.override(task_id="work")("work")
        with task_group("unused") as unused:
            EmptyOperator(task_id="other")
        choose() >> [used, unused]


@dag(schedule=ledger)
def with_past():
    @task(depends_on_past=True)
    def book(ctx: Context) -> str:
        (event,) = ctx.events[ledger]
        if event.extra["fails"] and not ctx.attempt > 1:
            raise Fail("not yet")
        return event.extra["name"]

    book()
