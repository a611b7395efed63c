"""A daemon stands still for longer than any lease, and comes back: what it still says is void."""

import anyio
import pytest

from support.faults.rounds import run_stall

pytestmark = pytest.mark.anyio

MOMENTS = 5


async def test_stalled_daemons(seed, tmp_path, record_report):
    """A worker, and beside it a manager."""

    async def run(fault: str):
        folder = tmp_path / fault
        folder.mkdir()
        record_report(await run_stall(fault, "two", seed=seed, folder=folder))

    async with anyio.create_task_group() as group:
        group.start_soon(run, "worker")
        group.start_soon(run, "manager")


@pytest.mark.soak
@pytest.mark.parametrize("fault", ["worker", "manager"])
@pytest.mark.parametrize("daemons", ["one", "two"])
@pytest.mark.parametrize("moment", range(1, MOMENTS + 1))
async def test_stalled_daemons_at_any_moment(fault, daemons, moment, seed, tmp_path, record_report):
    record_report(await run_stall(fault, daemons, seed=seed, folder=tmp_path))
