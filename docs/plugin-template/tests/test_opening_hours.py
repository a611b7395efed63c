from datetime import UTC, datetime, timedelta

from acme_plugins.opening_hours import OpeningDays

from pubsubflow import DAG
from pubsubflow.testing import simulate


def test_it_leaves_out_sundays_and_holidays():
    dag = DAG("report", schedule=OpeningDays("12-25"))
    runs = simulate(dag, [datetime(2026, 12, 23, 12, tzinfo=UTC), timedelta(days=5)])
    assert [run.logical_time.isoformat() for run in runs] == [
        "2026-12-24T08:00:00+00:00",
        "2026-12-26T08:00:00+00:00",
        "2026-12-28T08:00:00+00:00",
    ]
