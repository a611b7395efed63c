"""Two DAGs: an event of a dataset that one of them writes starts the other."""

from pubsubflow import Context, Dataset, dag, task

orders = Dataset("file:///lake/orders")
report = Dataset("file:///lake/report")


@dag(params={"rows": 3}, tags=["example"])
def ingest():
    """Load orders. Start it: pubsubflow dags trigger ingest."""

    @task(outlets=[orders], retries=2)
    async def load(ctx: Context) -> int:
        rows = ctx.run.params["rows"]
        ctx.emit(orders, extra={"rows": rows})
        return rows

    load()


@dag(schedule=orders, tags=["example"])
def build_report():
    """Add up the orders of all events that came since the last run."""

    @task
    def add_up(ctx: Context) -> int:
        return sum(event.extra["rows"] for event in ctx.events[orders])

    @task(outlets=[report])
    def publish(rows: int) -> str:
        print(f"{rows} rows in the report")
        return f"{rows} rows"

    publish(add_up())
