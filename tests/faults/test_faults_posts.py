"""No accepted event is lost or doubled when the daemon dies by `kill -9` under a load of posts."""

import pytest

from support.faults.posts import run_posts
from support.faults.series import run_own_servers

pytestmark = pytest.mark.anyio


async def test_accepted_events_runs_and_waits_survive_kills(seed, tmp_path, record_report):
    """The servers are the daemon's own, and die with it."""
    record_report(await run_own_servers(seed, tmp_path))


@pytest.mark.soak
@pytest.mark.parametrize("number", range(20))
async def test_accepted_events_survive_a_kill_at_any_moment(number, seed, tmp_path):
    print(await run_posts(kills=1, seed=seed, folder=tmp_path))
