"""Nothing lost, nothing twice: whatever dies by `kill -9` at a random moment under load."""

import pytest
from fault_rounds import FAULTS, play

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("daemons", ["one", "two"]),
    pytest.mark.parametrize("fault", FAULTS),
]

MOMENTS = 20


async def test_nothing_is_lost_or_doubled(fault, daemons, seed, tmp_path, note_account):
    note_account(await play(fault, daemons, moments=2, seed=seed, folder=tmp_path))


@pytest.mark.soak
@pytest.mark.parametrize("moment", range(1, MOMENTS + 1))
async def test_nothing_is_lost_or_doubled_at_any_moment(
    fault, daemons, moment, seed, tmp_path, note_account
):
    note_account(await play(fault, daemons, moments=1, seed=seed, folder=tmp_path))
