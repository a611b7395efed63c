"""DAGs of the scenario `waiting`: tasks that wait."""

import os
import time
from datetime import UTC, datetime

from pubsubflow_triggers import Moment

from pubsubflow import Context, Dataset, dag, task

LOG = os.environ.get("BENCH_LOG", "/dev/null")
AWAITED = Dataset("bench://awaited")


def mark(name: str, phase: str, moment: float) -> None:
    """Append one line `moment name phase` to the log, in one write."""
    descriptor = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{moment:.6f} {name} {phase}\n".encode())
    os.close(descriptor)


@dag(params={"at": 0.0, "count": 1})
def wait_for_a_moment():
    """Many tasks that wait for the same moment."""

    @task
    async def numbers(ctx: Context) -> list[int]:
        return list(range(ctx.run.params["count"]))

    @task
    async def sleeper(ctx: Context, number: int) -> None:
        at = ctx.run.params["at"]
        await ctx.wait(Moment(at=datetime.fromtimestamp(at, UTC)))
        mark(f"sleeper_{number}", "late", time.time() - at)

    sleeper.expand(number=numbers())


@dag
def wait_for_an_event():
    """One task that waits for an event, and logs how long after its post it resumed."""

    @task
    async def listener(ctx: Context) -> None:
        event = await ctx.wait_for_event(AWAITED)
        mark("listener", "resumed", time.time() - event.extra["at"])

    listener()
