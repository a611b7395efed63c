"""Nothing lost, nothing twice: whatever dies, stands still or is away at a random moment."""

import anyio
import pytest

from support.faults.rounds import FAULTS, run_round
from support.faults.series import run_absences, run_kills

pytestmark = pytest.mark.anyio

MOMENTS = 20


async def test_nothing_is_lost_or_doubled(seed, tmp_path, record_report):
    """Each fault once, on daemons that are started once; most of a series is waiting."""

    async def run(series):
        folder = tmp_path / series.__name__
        folder.mkdir()
        record_report(await series(seed, folder))

    async with anyio.create_task_group() as group:
        group.start_soon(run, run_kills)
        group.start_soon(run, run_absences)


@pytest.mark.soak
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("daemons", ["one", "two"])
@pytest.mark.parametrize("moment", range(1, MOMENTS + 1))
async def test_nothing_is_lost_or_doubled_at_any_moment(
    fault, daemons, moment, seed, tmp_path, record_report
):
    record_report(await run_round(fault, daemons, moments=1, seed=seed, folder=tmp_path))
