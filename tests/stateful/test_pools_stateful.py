"""Whatever happens, slots are neither given twice nor left idle, and the first in line is first."""

import asyncpg
import pytest
from core_rig import running
from manager_world import watch
from pools_world import CHECKS, PoolsWorld

pytestmark = pytest.mark.anyio


@pytest.fixture
async def admin(postgres):
    connection = await asyncpg.connect(postgres.url)
    await watch(connection)
    await connection.execute(CHECKS)
    yield connection
    await connection.close()


async def play(database, bus, nats, admin, *, seed: int, steps: int) -> None:
    async with running(database, bus, nats, managers=2) as rig:
        await PoolsWorld(rig, admin, seed).play(steps)
        assert await rig.rows("SELECT what FROM violation LIMIT 5") == []
        assert await rig.rows("SELECT subject, reason FROM dead_letter") == []
        assert await rig.rows("SELECT * FROM slot") == []
        assert await rig.rows("SELECT * FROM line WHERE (used, waiting) <> (0, 0)") == []
        assert await rig.rows("SELECT * FROM task_live") == []
        assert await rig.rows("SELECT * FROM run WHERE state IN ('running', 'queued')") == []
        assert await rig.rows("SELECT * FROM gate WHERE active <> 0 OR queued <> 0") == []


@pytest.mark.parametrize("seed", range(3))
async def test_slots_are_kept_in_a_misbehaving_world(database, bus, nats, admin, seed):
    await play(database, bus, nats, admin, seed=seed, steps=200)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1030))
async def test_slots_are_kept_in_many_misbehaving_worlds(database, bus, nats, admin, seed):
    await play(database, bus, nats, admin, seed=seed, steps=400)
