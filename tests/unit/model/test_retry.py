"""What follows a failed attempt."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.model.runs.retry import (
    MAX_CRASHES,
    GiveUp,
    Redeliver,
    RetryAt,
    after_crash,
    after_failure,
)
from pubsubflow.model.spec import RetryPolicy

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def delay(policy, attempt, chance=0.0):
    verdict = after_failure(policy, attempt, final=False, chance=chance, now=NOW)
    return (verdict.at - NOW).total_seconds() if isinstance(verdict, RetryAt) else None


def test_a_task_without_retries_gives_up():
    assert delay(RetryPolicy(), 1) is None


def test_retries_are_further_attempts():
    assert [delay(RetryPolicy(retries=2), attempt) for attempt in (1, 2, 3)] == [0, 0, None]


def test_a_final_failure_is_not_tried_again():
    policy = RetryPolicy(retries=5)
    assert after_failure(policy, 1, final=True, chance=0, now=NOW) == GiveUp()


def test_the_delay_grows_up_to_its_bound():
    policy = RetryPolicy(9, delay_seconds=2, backoff=3, max_delay_seconds=20)
    assert [delay(policy, attempt) for attempt in range(1, 5)] == [2, 6, 18, 20]


def test_chance_lengthens_the_delay_by_its_share_of_the_jitter():
    policy = RetryPolicy(9, delay_seconds=10, jitter=0.5)
    assert [delay(policy, 1, chance) for chance in (0.0, 0.5)] == [10, 12.5]


@pytest.mark.parametrize("bound", [None, 60.0])
def test_a_delay_beyond_all_numbers_is_still_a_moment(bound):
    policy = RetryPolicy(5000, delay_seconds=10, backoff=10, max_delay_seconds=bound)
    seconds = delay(policy, 5000)
    assert seconds is not None
    assert seconds == bound or bound is None


@given(
    st.builds(
        RetryPolicy,
        retries=st.integers(0, 10**4),
        delay_seconds=st.floats(0, 10**9),
        backoff=st.floats(1, 100),
        max_delay_seconds=st.none() | st.floats(0, 10**9),
        jitter=st.floats(0, 1),
    ),
    st.integers(1, 10**4),
    st.floats(0, 1, exclude_max=True),
)
def test_any_policy_gives_a_moment_or_gives_up(policy, attempt, chance):
    verdict = after_failure(policy, attempt, final=False, chance=chance, now=NOW)
    assert isinstance(verdict, GiveUp) == (attempt > policy.retries)
    if isinstance(verdict, RetryAt):
        assert verdict.at >= NOW
        if policy.max_delay_seconds is not None:
            longest = policy.max_delay_seconds * (1 + policy.jitter)
            assert verdict.at <= NOW + timedelta(seconds=longest + 1e-3)


def test_the_first_crashes_cost_no_retry():
    verdicts = [
        after_crash(RetryPolicy(), 1, crashes, chance=0, now=NOW)
        for crashes in range(1, MAX_CRASHES + 1)
    ]
    assert verdicts == [Redeliver()] * (MAX_CRASHES - 1) + [GiveUp()]


def test_a_task_that_keeps_killing_its_process_uses_its_retries():
    policy = RetryPolicy(retries=1)
    assert after_crash(policy, 1, MAX_CRASHES, chance=0, now=NOW) == RetryAt(NOW)
    assert after_crash(policy, 2, MAX_CRASHES + 1, chance=0, now=NOW) == GiveUp()
