"""Nothing lost, nothing twice: whatever dies by `kill -9` at a random moment under load."""

import pytest
from fault_rounds import FAULTS

pytestmark = pytest.mark.anyio

MOMENTS = 20


@pytest.mark.parametrize("daemons", ["one", "two"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_nothing_is_lost_or_doubled(fault, daemons, play_round):
    account = await play_round(fault, daemons, moments=2)
    assert account.kills == 2


@pytest.mark.soak
@pytest.mark.parametrize("moment", range(1, MOMENTS + 1))
@pytest.mark.parametrize("daemons", ["one", "two"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_nothing_is_lost_or_doubled_at_any_moment(fault, daemons, moment, play_round):
    account = await play_round(fault, daemons, moments=1)
    assert account.kills == 1
