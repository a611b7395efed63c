"""Rate limits: token buckets that bound how many tasks start in a time.

A bucket is kept as the moment at which it is full again, in whole microseconds: no rounding adds
up, and a bucket that nothing has been taken from for long needs no change.
"""

from datetime import datetime, timedelta
from math import ceil

import msgspec
from msgspec import Struct

_MICROSECOND = timedelta(microseconds=1)


class RateLimitSpec(Struct, frozen=True, omit_defaults=True):
    """A rate limit as a DAG declares it.

    Attributes:
        name: Tasks of all DAGs under the same name share it.
        starts: How many tasks may start in `per_seconds`.
        per_seconds: The time in which they may.
        burst: How many may start at once after a pause.
    """

    name: str
    starts: int
    per_seconds: float
    burst: int

    @property
    def interval(self) -> timedelta:
        """The time after which another task may start; rounded up, so that it never is too many."""
        return timedelta(microseconds=max(ceil(self.per_seconds * 1_000_000 / self.starts), 1))

    def describe(self) -> str:
        """Return it for people, as in `100 per minute`."""
        return f"{self.starts:,} per {_describe_seconds(self.per_seconds)}"


class Bucket(Struct, frozen=True):
    """The tokens of a rate limit: each start takes one.

    Attributes:
        spec: The rate limit.
        full_at: When it is full again if nothing starts until then.
        wake_at: When a timer looks for waiting tasks; None if none is set.
    """

    spec: RateLimitSpec
    full_at: datetime
    wake_at: datetime | None = None

    def available(self, now: datetime) -> int:
        """Return how many tasks may start at once."""
        missing = -(-_microseconds(self._full(now) - now) // _microseconds(self.spec.interval))
        return self.spec.burst - missing

    def take(self, tokens: int, now: datetime) -> "Bucket":
        """Return the bucket after so many starts, which were available."""
        full_at = self._full(now) + tokens * self.spec.interval
        return msgspec.structs.replace(self, full_at=full_at)

    def next_at(self, now: datetime) -> datetime:
        """Return when the next task may start; `now` or earlier when one may already."""
        return self._full(now) - (self.spec.burst - 1) * self.spec.interval

    def _full(self, now: datetime) -> datetime:
        # Not emptier than empty: the limit may have been raised, or the clock was ahead once.
        empty = now + self.spec.burst * self.spec.interval
        return min(max(self.full_at, now), empty)


def _microseconds(length: timedelta) -> int:
    return length // _MICROSECOND


_UNITS = {86_400.0: "day", 3_600.0: "hour", 60.0: "minute", 1.0: "second"}


def _describe_seconds(seconds: float) -> str:
    for unit, name in _UNITS.items():
        if seconds % unit == 0:
            count = int(seconds / unit)
            return name if count == 1 else f"{count:,} {name}s"
    return f"{seconds:g} s"
