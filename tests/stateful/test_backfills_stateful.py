"""Backfills of overlapping times under a random workload: each run is made once, within limits."""

import asyncpg
import pytest

from pubsubflow.model.schedule.backfills import STORED_PLAN
from support.harness import running_managers
from support.stateful.backfills import BackfillsWorkload
from support.stateful.manager import watch

pytestmark = pytest.mark.anyio


@pytest.fixture
async def admin(postgres):
    connection = await asyncpg.connect(postgres.url)
    await watch(connection)
    yield connection
    await connection.close()


async def play(database, bus, nats, admin, *, seed: int, steps: int) -> None:
    async with running_managers(database, bus, nats, managers=2) as harness:
        await BackfillsWorkload(harness, admin, seed).play(steps)
        assert await harness.rows("SELECT what FROM violation LIMIT 5") == []
        assert await harness.rows("SELECT subject, reason FROM dead_letter") == []
        assert await harness.rows("SELECT * FROM backfill WHERE open") == []
        assert await harness.rows("SELECT * FROM run WHERE ended_at IS NULL") == []
        left = "active <> 0 OR queued <> 0 OR backfills <> 0 OR apart <> 0"
        assert await harness.rows(f"SELECT * FROM dag_state WHERE {left}") == []
        made = await harness.rows(
            "SELECT run.logical_time, b.backfill FROM run JOIN backfill_run AS b ON b.run = run.id"
        )
        assert len(made) == len(set(map(tuple, made))), "one run a tick and backfill"
        ticks = {time for time, _ in made}
        whole = await harness.rows("SELECT plan FROM backfill WHERE state = 'completed'")
        for (plan,) in whole:
            assert set(STORED_PLAN.decode(plan).moments()) <= ticks
        first = await harness.rows(
            "SELECT logical_time FROM run WHERE kind = 'backfill' AND run_key NOT LIKE '%:again:%'"
        )
        assert len(first) == len(ticks), "two backfills share the run of a tick"


@pytest.mark.parametrize("seed", range(2))
async def test_backfills_keep_their_limits_and_make_each_run_once(database, bus, nats, admin, seed):
    await play(database, bus, nats, admin, seed=seed, steps=200)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1030))
async def test_many_random_backfills(database, bus, nats, admin, seed):
    await play(database, bus, nats, admin, seed=seed, steps=500)
