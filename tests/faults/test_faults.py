"""Nothing lost, nothing twice: whatever dies by `kill -9` at a random moment under load."""

import anyio
import pytest

from support.faults.rounds import FAULTS, run_round

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("fault", FAULTS)]

MOMENTS = 20


async def test_nothing_is_lost_or_doubled(fault, seed, tmp_path, record_report):
    """One daemon and two that share the work, side by side: most of a round is waiting."""

    async def run_with(daemons: str):
        folder = tmp_path / daemons
        folder.mkdir()
        record_report(await run_round(fault, daemons, moments=1, seed=seed, folder=folder))

    async with anyio.create_task_group() as group:
        group.start_soon(run_with, "one")
        group.start_soon(run_with, "two")


@pytest.mark.soak
@pytest.mark.parametrize("daemons", ["one", "two"])
@pytest.mark.parametrize("moment", range(1, MOMENTS + 1))
async def test_nothing_is_lost_or_doubled_at_any_moment(
    fault, daemons, moment, seed, tmp_path, record_report
):
    record_report(await run_round(fault, daemons, moments=1, seed=seed, folder=tmp_path))
