"""DAG of many waiting tasks, each waiting in one of several ways, logged when they resume."""

import os
from datetime import UTC, datetime, timedelta

from execution_notes import note
from pubsubflow_triggers import FileAppears, Moment

from pubsubflow import Context, Dataset, dag, task

FLAG = os.environ["FAULT_NOTES"] + ".flag"
awaited, resumed = Dataset("fault://awaited"), Dataset("fault://resumed")


async def answer(number: int) -> int:
    """Run as a step: its value is recorded once."""
    return number * 10


@dag(params={"count": 1, "at": 0.0})
def waits() -> None:
    """Wait for a moment, an event of one's own, a file, or one after the other."""

    @task
    async def numbers(ctx: Context) -> list[int]:
        return list(range(ctx.run.params["count"]))

    @task(outlets=[resumed], retries=2)
    async def waiter(ctx: Context, number: int) -> int:
        value = await ctx.step("answer", answer, number)
        moment = Moment(at=datetime.fromtimestamp(ctx.run.params["at"], UTC))
        match number % 4:
            case 0:
                await ctx.wait(moment)
            case 1:
                mine = f"event.extra.n == {number}"  # it may come before a task that is run again
                event = await ctx.wait_for_event(awaited, where=mine, lookback=timedelta(hours=1))
                value += event.extra["n"]
            case 2:
                await ctx.wait(FileAppears(path=FLAG))
            case _:
                await ctx.sleep(timedelta(seconds=0.2))
                first = await ctx.first(FileAppears(path=FLAG), timedelta(hours=1))
                value += first.index
        note(ctx)
        ctx.emit(resumed, extra={"number": number})
        return value

    waiter.expand(number=numbers())
