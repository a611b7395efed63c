"""Rolling upgrades: daemons of the former version beside those of this one, and the way back.

The former version is built from its commit, see `support.former`.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest

from pubsubflow.store.migrate import load_migrations
from support.faults.environment import ALL, CONTROL, WORKER
from support.faults.load import Load
from support.faults.upgrade import open_cluster
from support.former import unpack_former

pytestmark = pytest.mark.anyio
PART = 0.15
KILLS = 10


@pytest.fixture
def former(tmp_path):
    return unpack_former(tmp_path / "former")


async def test_a_cluster_is_upgraded_and_taken_back_daemon_by_daemon(former, seed, tmp_path):
    """Nothing is lost and nothing doubled, whichever version does which part of the work."""
    with TemporaryDirectory(prefix="psf-upgrade-") as home:
        async with open_cluster(former, Path(home), tmp_path, seed) as cluster:
            load = Load(cluster.members, cluster.chance, part=PART)
            # The former version alone: it makes the schema, and tasks begin to wait.
            old, old_worker = await cluster.start(former_control=CONTROL, former_worker=WORKER)
            known = len(await cluster.query("SELECT FROM migration"))
            newer = known < len(load_migrations())
            waiting = await cluster.begin_waits()
            # Beside it a manager of this version, which migrates.
            async with anyio.create_task_group() as group:
                group.start_soon(load.post)
                (new,) = await cluster.start(new_control=CONTROL)
            assert len(await cluster.query("SELECT FROM migration")) == len(load_migrations())
            # That manager with the worker of the former version.
            async with anyio.create_task_group() as group:
                group.start_soon(load.post)
                await cluster.stop(old)
            # This version alone ends what the former one has begun.
            await cluster.start(new_worker=WORKER)
            async with anyio.create_task_group() as group:
                group.start_soon(load.post)
                await cluster.stop(old_worker)
            await cluster.end_waits()
            # A former manager starts on the newer schema, with the worker of this version.
            (again,) = await cluster.start(former_again=CONTROL)
            assert bool(again.logged("store.schema_newer")) == newer
            async with anyio.create_task_group() as group:
                group.start_soon(load.post)
                await cluster.stop(new)
            await cluster.check(load, waiting)


@pytest.mark.soak
async def test_nothing_is_lost_while_daemons_of_both_versions_are_killed(former, seed, tmp_path):
    with TemporaryDirectory(prefix="psf-upgrade-") as home:
        async with open_cluster(former, Path(home), tmp_path, seed) as cluster:
            load = Load(cluster.members, cluster.chance)
            await cluster.start(former_whole=ALL)
            await cluster.start(new_whole=ALL)
            for _ in range(KILLS):
                for member in cluster.members:
                    await member.ready.wait()
                moment = cluster.executions.count() + cluster.chance.randrange(1, load.executions)
                async with anyio.create_task_group() as group:
                    group.start_soon(load.post)
                    await cluster.executions.reach(moment)
                    cluster.chance.choice(cluster.members).kill()
            await cluster.check(load)
