"""Simulations in processes of their own: what one of them costs the others, and who waits."""

from datetime import UTC, datetime, timedelta

import anyio
import psutil
import pytest

from pubsubflow.child_calls.simulation import Simulations
from pubsubflow.errors import InvalidInput
from pubsubflow.model.schedule.simulations import InventedEvent, SimulationOrder

pytestmark = pytest.mark.anyio
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
KEYS = "fan_out(table={'x': ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j']})"
EXPENSIVE = f"partitioned(Dataset('s3://lake/a'), by=product({', '.join([KEYS] * 9)}))"


def order(text, **more):
    events = (InventedEvent("s3://lake/a", NOON, "|".join(["x"] * 9)),)
    return SimulationOrder(text, None, events, NOON, NOON + timedelta(hours=1), **more)


async def test_an_expensive_one_ends_alone_and_delays_others_by_one():
    async with anyio.create_task_group() as group:
        simulations, stopping, ended = Simulations(idle_seconds=0.2), anyio.Event(), []
        await group.start(simulations.run, stopping)

        async def ask(who):
            found = await simulations(order("Dataset('s3://lake/a')"), who)
            assert [run.events for run in found.runs] == [[0]]
            ended.append(who)

        async def flood():
            with pytest.raises(InvalidInput, match=r"more than 0\.3 s of processor time"):
                await simulations(order(EXPENSIVE, cpu_seconds=0.3), "flood")
            ended.append("flood")

        before = set(psutil.Process().children())
        async with anyio.create_task_group() as asking:
            for _ in range(3):
                asking.start_soon(flood)
            asking.start_soon(ask, "other")
        assert ended.index("other") < 2
        assert len(ended) == 4
        # The process from which they are forked ends when none comes any more.
        while set(psutil.Process().children()) - before:  # noqa: ASYNC110
            await anyio.sleep(0.02)
        await ask("other")
        stopping.set()
