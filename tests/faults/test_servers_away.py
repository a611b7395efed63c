"""A server is away for ten seconds: daemons wait, say so once, and go on."""

import pytest

from support.faults.outages import SERVERS, run_outage

pytestmark = pytest.mark.anyio

MOMENTS = 5


@pytest.mark.soak
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("daemons", ["one", "two"])
@pytest.mark.parametrize("moment", range(1, MOMENTS + 1))
async def test_servers_away_at_any_moment(server, daemons, moment, seed, tmp_path, record_report):
    record_report(await run_outage(server, daemons, seed=seed, folder=tmp_path))
