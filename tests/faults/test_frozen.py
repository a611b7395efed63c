"""A process of any kind is frozen under load: others do its work, and it harms none of them."""

import pytest

from support.faults.frozen import KINDS, FrozenReport, run_frozen

pytestmark = pytest.mark.anyio

LONGEST_SECONDS = 11.0
MOMENTS = 3


def check_report(report: FrozenReport):
    frozen = KINDS[report.kind]
    own = frozen.seconds if report.kind in ("nats", "postgres") else 0.0
    assert report.p99_seconds <= LONGEST_SECONDS + own, report
    assert report.lost <= frozen.lost, report
    if not frozen.lost:
        assert not report.repeated, report


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("moment", range(1, MOMENTS + 1))
async def test_frozen_processes_at_any_moment(kind, moment, seed, tmp_path, record_report):
    report = await run_frozen(kind, seed=seed, folder=tmp_path)
    record_report(report)
    check_report(report)
