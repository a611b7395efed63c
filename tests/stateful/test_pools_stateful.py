"""Whatever happens, slots are neither given twice nor left idle, and the first in line is first."""

import asyncpg
import pytest

from support.harness import running_managers
from support.stateful.manager import watch
from support.stateful.pools import CHECKS, RATE, PoolsWorkload

pytestmark = pytest.mark.anyio


@pytest.fixture
async def admin(postgres):
    connection = await asyncpg.connect(postgres.url)
    await watch(connection)
    await connection.execute(CHECKS)
    yield connection
    await connection.close()


async def play(database, bus, nats, admin, *, seed: int, steps: int) -> None:
    async with running_managers(database, bus, nats, managers=2) as harness:
        await PoolsWorkload(harness, admin, seed).play(steps)
        assert await harness.rows("SELECT what FROM violation LIMIT 5") == []
        assert await harness.rows("SELECT subject, reason FROM dead_letter") == []
        assert await harness.rows("SELECT * FROM wait_queue WHERE passing") == []
        starts, seconds = (
            await harness.rows("SELECT count(*), extract(epoch FROM max(at) - min(at)) FROM start")
        )[0]
        # Slots are granted a moment after the time of the decision.
        assert starts <= RATE.burst + (float(seconds or 0) + 1) * RATE.starts
        assert await harness.rows("SELECT * FROM slot") == []
        assert await harness.rows("SELECT * FROM wait_queue WHERE (used, waiting) <> (0, 0)") == []
        assert await harness.rows("SELECT * FROM task_live") == []
        assert await harness.rows("SELECT * FROM run WHERE state IN ('running', 'queued')") == []
        assert await harness.rows("SELECT * FROM dag_state WHERE active <> 0 OR queued <> 0") == []


@pytest.mark.parametrize("seed", range(3))
async def test_slots_are_kept_under_a_random_workload(database, bus, nats, admin, seed):
    await play(database, bus, nats, admin, seed=seed, steps=200)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1030))
async def test_slots_are_kept_under_many_random_workloads(database, bus, nats, admin, seed):
    await play(database, bus, nats, admin, seed=seed, steps=400)
