"""Tasks in pods, with a module beside this file that no image has."""

import anyio
from beside import ANSWER

from pubsubflow import Context, Dataset, dag, task

news = Dataset("s3://lake/news")


@dag(executor="kubernetes")
def jobs():
    @task
    def count() -> int:
        print("counting")
        return ANSWER

    @task
    async def waits(ctx: Context, number: int):
        await ctx.wait_for_event(news)
        print("waited", number)

    waits(count())


@dag(executor="kubernetes")
def stays():
    @task
    async def held():
        print("held")
        await anyio.sleep_forever()

    held()
