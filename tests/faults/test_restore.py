"""Postgres is restored from a base backup while NATS and the daemons stay."""

import pytest

from support.faults.restore import run_restore

pytestmark = pytest.mark.anyio

MOMENTS = 5


@pytest.mark.soak
@pytest.mark.parametrize("daemons", ["one", "two"])
@pytest.mark.parametrize("moment", range(1, MOMENTS + 1))
async def test_restored_postgres_at_any_moment(daemons, moment, seed, tmp_path, record_report):
    record_report(await run_restore(daemons, seed=seed, folder=tmp_path))
