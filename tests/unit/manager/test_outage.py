"""Outages of Postgres: from the first failure to the first work that is done."""

import pytest
import structlog

from pubsubflow.manager import outage as outages
from pubsubflow.manager.outage import StoreOutage

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(outages.anyio, "current_time", lambda: now[0])
    return now


async def test_callers_are_kept_waiting_for_a_moment_and_pauses_grow(clock):
    outage = StoreOutage()
    assert (outage.since, outage.impatient, outage.longest) == (None, False, False)
    pauses = [outage.begin("away") for _ in range(7)]
    assert pauses == [0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5]
    assert (outage.impatient, outage.longest) == (False, True)
    clock[0] += 1.5
    assert outage.impatient
    outage.end()
    assert (outage.since, outage.impatient, outage.longest) == (None, False, False)
    assert outage.begin("away") == 0.02


async def test_one_that_comes_and_goes_is_logged_now_and_then(clock):
    """On a full disk connections open, and all work on them fails."""
    outage = StoreOutage()
    with structlog.testing.capture_logs() as logs:
        for _ in range(100):
            outage.begin("no space left on device")
            clock[0] += 0.5
            outage.end()
    assert [each["event"] for each in logs] == ["manager.store_away", "manager.store_back"] * 2
    assert {each.get("reason") for each in logs} == {"no space left on device", None}
