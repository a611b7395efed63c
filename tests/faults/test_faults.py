"""Nothing lost, nothing twice: whatever dies by `kill -9` at a random moment under load."""

import pytest

from support.faults.rounds import FAULTS, run_round

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("fault", FAULTS)]

MOMENTS = 20


async def test_nothing_is_lost_or_doubled(fault, seed, tmp_path, record_report):
    """With one daemon or with two that share the work, as the seed says."""
    daemons = "one" if seed % 2 else "two"
    record_report(await run_round(fault, daemons, moments=1, seed=seed, folder=tmp_path))


@pytest.mark.soak
@pytest.mark.parametrize("daemons", ["one", "two"])
@pytest.mark.parametrize("moment", range(1, MOMENTS + 1))
async def test_nothing_is_lost_or_doubled_at_any_moment(
    fault, daemons, moment, seed, tmp_path, record_report
):
    record_report(await run_round(fault, daemons, moments=1, seed=seed, folder=tmp_path))
