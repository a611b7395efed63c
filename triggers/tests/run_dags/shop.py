from pubsubflow_triggers import KafkaMessage

from pubsubflow import Context, Dataset, dag, task

URL = "connection:shop"
orders = Dataset(
    "kafka://shop/orders",
    watch=KafkaMessage(url=URL, topic="orders", deliver="all", partition="key"),
)


@dag(schedule=orders)
def count():
    @task
    async def seen(ctx: Context) -> list[str]:
        return [event.extra["value"] for event in ctx.events[orders]]

    seen()


@dag
def waits():
    @task
    async def go(ctx: Context) -> object:
        event = await ctx.wait(KafkaMessage(url=URL, topic="signals", where="key == 'go'"))
        return event.payload["value"]

    go()
