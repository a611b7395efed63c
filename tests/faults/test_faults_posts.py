"""No accepted event is lost or doubled when the daemon dies by `kill -9` under a load of posts."""

import pytest

from support.faults.posts import run_posts

pytestmark = pytest.mark.anyio


async def test_accepted_events_survive_a_kill(seed, tmp_path):
    report = await run_posts(kills=1, seed=seed, folder=tmp_path)
    print(report)
    assert report.unanswered


@pytest.mark.soak
@pytest.mark.parametrize("number", range(20))
async def test_accepted_events_survive_a_kill_at_any_moment(number, seed, tmp_path):
    print(await run_posts(kills=1, seed=seed, folder=tmp_path))
