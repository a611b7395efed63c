"""DAGs around a dataset with checks."""

import time
from pathlib import Path

from pubsubflow import CheckResult, Context, Dataset, check, dag, task

orders = Dataset("lake://orders")


@check(orders, retries=1)
def has_rows(ctx, event):
    """Orders are never empty."""
    extra = event.extra
    while "hold" in extra and Path(extra["hold"]).exists():
        time.sleep(0.02)
    if extra["rows"] < 0:
        raise ValueError(f"{extra['rows']} rows cannot be")
    mended = "mend" in extra and Path(extra["mend"]).exists()
    return CheckResult(
        extra["rows"] > 0 or mended,
        description=f"{extra['rows']} rows",
        metadata={"try": ctx.attempt},
    )


@check(Dataset.match("lake://*"), blocking=False, severity="warn")
async def is_small(event):
    return event.extra["rows"] < 100


@dag(schedule=orders)
def uses():
    @task
    async def names(ctx: Context) -> list[str]:
        return [event.extra["name"] for event in ctx.events[orders]]

    names()


@dag
def waits():
    @task
    async def wait(ctx: Context) -> str:
        event = await ctx.wait_for_event(orders, where="event.extra.name != 'no'")
        return event.extra["name"]

    wait()


@dag(params={"names": ["a", "b"]})
def makes():
    @task(outlets=[orders])
    async def make(ctx: Context) -> None:
        for name in ctx.run.params["names"]:
            ctx.emit(orders, extra={"name": name, "rows": 1}, partition=name)

    make()
