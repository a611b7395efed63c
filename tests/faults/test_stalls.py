"""A daemon stands still for longer than any lease, and comes back: what it still says is void."""

import pytest

from support.faults.rounds import run_stall

pytestmark = pytest.mark.anyio

MOMENTS = 5


@pytest.mark.soak
@pytest.mark.parametrize("fault", ["worker", "manager"])
@pytest.mark.parametrize("daemons", ["one", "two"])
@pytest.mark.parametrize("moment", range(1, MOMENTS + 1))
async def test_stalled_daemons_at_any_moment(fault, daemons, moment, seed, tmp_path, record_report):
    record_report(await run_stall(fault, daemons, seed=seed, folder=tmp_path))
