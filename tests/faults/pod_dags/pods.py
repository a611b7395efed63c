"""Tasks in pods whose every effect is counted."""

import os
import time
from datetime import timedelta

from pubsubflow import Context, Dataset, Retry, dag, task

first, second, fanned = (Dataset(f"pods://{name}") for name in ("first", "second", "fanned"))
again = Retry(100, delay=timedelta(seconds=0.1))


@dag(executor="kubernetes", params={"number": 0}, max_active_runs=6)
def work():
    @task(outlets=[first], retries=again)
    def double(ctx: Context) -> int:
        print("doubling in", os.getpid())
        ctx.emit(first, extra={"number": ctx.run.params["number"]})
        time.sleep(0.3)
        return 2 * ctx.run.params["number"]

    @task(outlets=[second], retries=again)
    async def rest(ctx: Context, value: int) -> int:
        once = await ctx.step("once", lambda: value + 1)
        await ctx.sleep(timedelta(seconds=0.2))
        ctx.emit(second, extra={"number": ctx.run.params["number"], "value": once})
        return once

    rest(double())


@dag(schedule=second)
def follow():
    @task(outlets=[fanned])
    async def note(ctx: Context):
        (event,) = ctx.events[second]
        ctx.emit(fanned, extra=event.extra)

    note()
