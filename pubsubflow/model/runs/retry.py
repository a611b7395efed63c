"""Retry decisions after a failed attempt."""

from datetime import datetime, timedelta

from msgspec import Struct

from pubsubflow.model.spec import RetryPolicy

MAX_CRASHES = 3
LONGEST_DELAY_SECONDS = 366 * 86_400.0
_TIME_LIMIT = frozenset(f"{each.__module__}.{each.__qualname__}" for each in TimeoutError.__mro__)


class RetryAt(Struct, frozen=True):
    """Try again at a moment, as the next attempt."""

    at: datetime


class Redeliver(Struct, frozen=True):
    """Deliver the same attempt again at once: the death of its process may not be its fault."""


class GiveUp(Struct, frozen=True):
    """The task has failed for good."""


def after_failure(
    policy: RetryPolicy,
    attempt: int,
    *,
    final: bool,
    chance: float,
    now: datetime,
    wanted: float | None = None,
) -> RetryAt | GiveUp:
    """Decide what follows a failed attempt.

    Args:
        policy: The task's policy.
        attempt: The attempt that failed, from 1.
        final: The task excluded further retries.
        chance: A random number from 0 up to 1; lengthens the delay by its share of the jitter.
        now: The moment of the decision.
        wanted: The delay in seconds that the task demands, in place of the policy's.
    """
    if final or attempt > policy.retries:
        return GiveUp()
    if wanted is not None:
        return RetryAt(now + timedelta(seconds=min(wanted, LONGEST_DELAY_SECONDS)))
    delay = _delay_seconds(policy, attempt) * (1 + policy.jitter * chance)
    return RetryAt(now + timedelta(seconds=delay))


def retries_time_limit(policy: RetryPolicy) -> bool:
    """Return whether a further attempt may follow one whose time limit was over."""
    if _TIME_LIMIT.intersection(policy.never):
        return False
    return not policy.on or bool(_TIME_LIMIT.intersection(policy.on))


def _delay_seconds(policy: RetryPolicy, attempt: int) -> float:
    """Return the delay without jitter, at most a year, also where the growth overflows."""
    longest = LONGEST_DELAY_SECONDS
    if policy.max_delay_seconds is not None:
        longest = min(longest, policy.max_delay_seconds)
    try:
        return min(policy.delay_seconds * policy.backoff ** (attempt - 1), longest)
    except OverflowError:
        return longest


def after_crash(
    policy: RetryPolicy, attempt: int, crashes: int, *, chance: float, now: datetime
) -> RetryAt | Redeliver | GiveUp:
    """Decide what follows the death of a task's process.

    The first `MAX_CRASHES - 1` deaths cost no retry: a machine's or a neighbour's fault must not
    fail a task. One that keeps killing its process counts as failed.

    Args:
        policy: The task's policy.
        attempt: The attempt that died, from 1.
        crashes: Deaths of this task so far, this one included.
        chance: See `after_failure`.
        now: See `after_failure`.
    """
    # The same attempt again, without a delay: the machine may have died, not the task.
    if crashes < MAX_CRASHES:
        return Redeliver()
    return after_failure(policy, attempt, final=False, chance=chance, now=now)
