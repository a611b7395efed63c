"""Deadlines and freshness as pure functions, under a virtual clock."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow import DAG, Deadline, DefinitionError
from pubsubflow.model.alerts import (
    DeadlineSpec,
    alert_uri,
    deadline_due,
    describe_deadline,
    judge_freshness,
)
from pubsubflow.model.datasets import normalise_uri

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_a_deadline_counts_from_the_queue_the_tick_or_a_moment():
    fixed = DeadlineSpec(3600, "2026-12-01T00:00:00+00:00")
    assert deadline_due(DeadlineSpec(3600), NOW, None) == NOW + HOUR
    assert deadline_due(DeadlineSpec(3600, "logical_time"), NOW, NOW - HOUR) == NOW
    assert deadline_due(DeadlineSpec(3600, "logical_time"), NOW, None) is None
    assert deadline_due(fixed, NOW, None) == datetime(2026, 12, 1, 1, tzinfo=UTC)
    assert describe_deadline(DeadlineSpec(90)) == "not ended 0:01:30 after it was made"


def test_deadlines_are_in_the_spec():
    made = DAG(
        "x", deadlines=[Deadline(after=HOUR, since=datetime(2026, 12, 1, tzinfo=UTC), notify=print)]
    )
    (spec,) = made.to_spec("", "").deadlines
    assert spec == DeadlineSpec(3600, "2026-12-01T00:00:00+00:00", ("print",))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Deadline(after=timedelta(0)),
        lambda: Deadline(after=HOUR, since="tomorrow"),
        lambda: Deadline(after=HOUR, notify="ann"),
        lambda: DAG("x", deadlines=["1h"]),
    ],
)
def test_what_is_no_deadline_is_refused(make):
    with pytest.raises(DefinitionError):
        make()


def test_alerts_about_a_subject_are_a_dataset_of_their_own():
    assert alert_uri("deadline", "etl") == "pubsubflow://alerts/deadline/etl"
    for subject in ("s3://lake/a/b?c", "x" * 1500, "é:" * 500):
        uri = alert_uri("fresh", subject)
        assert normalise_uri(uri) == uri
        assert len(uri) <= 1500


moments = st.integers(-100, 100).map(lambda hours: NOW + hours * HOUR)


@given(seconds=st.integers(1, 400_000), since=moments, event=st.none() | moments, now=moments)
def test_a_dataset_is_stale_once_it_had_no_event_for_that_long(seconds, since, event, now):
    """Also when the clock was set back: it is looked at within its time, and not stale before."""
    found = judge_freshness(seconds, since, event, now)
    assert found.since == min(since if event is None else event, now)
    assert found.stale == (now - found.since >= timedelta(seconds=seconds))
    assert found.stale or now < found.look_at <= now + timedelta(seconds=seconds)
    # Looking again at the moment that it says finds it stale, unless an event has come.
    then = max(now, found.look_at)
    assert judge_freshness(seconds, found.since, None, then).stale
    assert not judge_freshness(seconds, found.since, then, then).stale
