"""A rate limit starts never too many, and the next one at the very moment that it may."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from pubsubflow.model.limits.rates import Bucket, RateLimitSpec

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)
SPECS = st.builds(
    RateLimitSpec,
    st.just("crm"),
    st.integers(1, 1000),
    st.floats(0.01, 100_000),
    st.integers(1, 200),
)


@settings(deadline=None)
@given(
    SPECS,
    st.lists(st.tuples(st.floats(0, 3), st.integers(0, 400)), max_size=40),
)
def test_starts_never_exceed_the_burst_and_what_flows_in(spec, demands):
    bucket, now, starts = Bucket(spec, NOW), NOW, []
    for intervals, wanted in demands:
        now += intervals * spec.interval
        count = min(wanted, bucket.available(now))
        assert bucket.available(now) >= 0
        bucket = bucket.take(count, now)
        starts += [now] * count
    for first, since in enumerate(starts):
        for last in range(first, len(starts)):
            assert last - first + 1 <= spec.burst + (starts[last] - since) // spec.interval


@given(SPECS, st.floats(0, 5))
def test_the_next_start_is_at_the_moment_that_is_named(spec, later):
    bucket = Bucket(spec, NOW).take(spec.burst, NOW)
    now = NOW + later * min(spec.interval, timedelta(days=1))
    while bucket.available(now):
        bucket = bucket.take(1, now)
    due = bucket.next_at(now)
    assert now < due <= now + spec.interval
    assert (bucket.available(due - TICK), bucket.available(due)) == (0, 1)


def test_a_rate_that_was_raised_counts_from_now():
    slow = RateLimitSpec("crm", 1, 86_400, 1)
    bucket = Bucket(slow, NOW).take(1, NOW)
    fast = Bucket(RateLimitSpec("crm", 60, 60, 60), bucket.full_at)
    assert fast.next_at(NOW) == NOW + timedelta(seconds=1)


def test_rates_are_written_for_people():
    assert RateLimitSpec("x", 100, 60, 1).describe() == "100 per minute"
    assert RateLimitSpec("x", 5000, 7200, 1).describe() == "5,000 per 2 hours"
    assert RateLimitSpec("x", 1, 0.5, 1).describe() == "1 per 0.5 s"
