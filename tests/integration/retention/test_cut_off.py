"""Passes that are cut off at any moment, two side by side, while events wait and runs go on."""

import random

import anyio
import pytest

from support.specs import dag, task

pytestmark = pytest.mark.anyio
ROUNDS = 20


@pytest.mark.parametrize("seed", range(2))
async def test_what_is_waited_for_is_never_lost(kept, seed):
    """Each y comes days after its x, and is consumed with it; runs that wait go on in the end."""
    chance = random.Random(seed)
    harness = kept.harness
    await harness.load(
        dag("pairs", task("t"), on="x & y"),
        dag("slow", task("first"), task("second", "first", kind="sync"), on="z"),
    )
    slow = []

    async def prune():
        with anyio.move_on_after(chance.choice((0.005, 0.02, 0.1, 5))):
            await kept.pruner(events_days=2, runs_days=2, logs_days=1).prune()

    harness.automatic = None
    for number in range(ROUNDS):
        await harness.post(f"x{number}")
        if number % 5 == 0:
            await harness.post(f"z{number}")
            first = await harness.finish("first")
            slow.append(await harness.order("second", run=first.message.run))
        for _ in range(2):
            await kept.age(chance.choice((0.2, 1, 3)))
            async with anyio.create_task_group() as group:
                group.start_soon(prune)
                group.start_soon(prune)
        await harness.post(f"y{number}")
        order = await harness.finish("t")
        assert order.events == [f"x{number}", f"y{number}"]
    for order in slow:
        order.delivery.ack()
        await harness.report(order.result())
    await harness.quiet()
    unfinished = "SELECT count(*) FROM run WHERE state <> 'success'"
    assert await harness.value(unfinished) == 0
    for _ in range(3):
        await kept.age(6)
        await kept.pruner(events_days=2, runs_days=2, logs_days=1).prune()
    assert await kept.counts("event", "run", "task", "run_event", "log") == [0, 0, 0, 0, 0]
    assert len(await kept.slices("event")) == len(await kept.slices("run")) == 1
    tables = {name.partition("_s")[0] for name in await kept.partitions()}
    assert len(await kept.partitions()) == len(tables), "a partition is left behind"
