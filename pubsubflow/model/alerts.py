"""Alerts: deadlines of runs, freshness of datasets, and the events that announce them."""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from urllib.parse import quote

from msgspec import Struct

ALERTS_URI = "pubsubflow://alerts/"
_MAX_SUBJECT = 1300


class AlertKind(StrEnum):
    """What an alert is about."""

    DEADLINE = "deadline"
    FRESHNESS = "freshness"
    CALLBACK = "callback"
    CHECK = "check"


class DeadlineSpec(Struct, frozen=True, omit_defaults=True):
    """A deadline of the runs of a DAG.

    Attributes:
        after_seconds: How long after `since`.
        since: `queued`, `logical_time`, or a moment in ISO 8601.
        callbacks: The names of what is called.
    """

    after_seconds: float
    since: str = "queued"
    callbacks: tuple[str, ...] = ()


class FreshSpec(Struct, frozen=True, omit_defaults=True):
    """How often a dataset is to have an event.

    Attributes:
        seconds: Without an event for that long, there is an alert.
        callbacks: The names of what is called.
    """

    seconds: float
    callbacks: tuple[str, ...] = ()

    @property
    def precedence(self) -> tuple[float, bool]:
        """Its place among declarations about one dataset: the lowest one is in force."""
        return (self.seconds, not self.callbacks)


def describe_conflict(dataset: str, here: float, shorter: float, where: str) -> str:
    """Return a warning about two declarations of how fresh a dataset is to be, in one line.

    Args:
        dataset: Its URI.
        here: The seconds of the declaration that has no effect.
        shorter: Those of the one that has.
        where: Where that one stands.
    """
    return (
        f"dataset {dataset!r}: fresh={timedelta(seconds=here)} has no effect, as {where} declares "
        f"fresh={timedelta(seconds=shorter)}: the shorter time counts"
    )


def deadline_due(
    spec: DeadlineSpec, queued_at: datetime, logical_time: datetime | None
) -> datetime | None:
    """Return when a deadline of a run passes; None for a run without the moment it counts from.

    Args:
        spec: The deadline.
        queued_at: When the run was made.
        logical_time: Its tick.
    """
    if spec.since == "queued":
        since: datetime | None = queued_at
    elif spec.since == "logical_time":
        since = logical_time
    else:
        since = datetime.fromisoformat(spec.since)
    return None if since is None else since + timedelta(seconds=spec.after_seconds)


def describe_deadline(spec: DeadlineSpec) -> str:
    """Return what passed, in one line."""
    since = {"queued": "it was made", "logical_time": "its logical time"}.get(
        spec.since, f"{spec.since}"
    )
    return f"not ended {timedelta(seconds=spec.after_seconds)} after {since}"


class DatasetLook(Struct, frozen=True):
    """What is known of the events of a dataset since the last look at it.

    Attributes:
        declared_at: When it was declared how fresh it is to be.
        last_event_at: The moment of the last event that counted.
        seen: The events up to this one have been counted.
    """

    declared_at: datetime
    last_event_at: datetime | None = None
    seen: int = 0


class SeenEvent(Struct, frozen=True):
    """An event of a dataset, as far as freshness is concerned."""

    number: int
    time: datetime
    recorded_at: datetime


class Freshness(Struct, frozen=True):
    """What becomes of a dataset's freshness.

    Attributes:
        look: What is known from now on.
        due_at: The moment at which it is stale without a further event.
        stale: That moment has passed.
    """

    look: DatasetLook
    due_at: datetime
    stale: bool


_SETTLED = timedelta(minutes=1)
"""No transaction that has recorded an event lasts that long: older events all are visible."""


def look_is_over(look: DatasetLook, newest: Sequence[SeenEvent]) -> bool:
    """Return whether no older event than these can be later than what they say.

    Args:
        look: The last look.
        newest: The newest events of the dataset, newest first.
    """
    moments = [min(each.time, each.recorded_at) for each in newest]
    if look.last_event_at is not None:
        moments.append(look.last_event_at)
    return bool(newest) and newest[-1].recorded_at <= max(moments)


def judge_freshness(
    seconds: float, look: DatasetLook, newest: Iterable[SeenEvent], now: datetime
) -> Freshness:
    """Return whether a dataset is stale, and what is known of it from now on.

    An event counts at its own time, or when it was recorded if that is earlier: a historical time
    does not make a dataset fresh. A moment that lies in the future was written before the clock
    was set back: it counts as now, once.

    Args:
        seconds: Without an event for that long, it is stale.
        look: The last look.
        newest: The events after those that are counted, as far back as they can make a difference.
        now: The time.
    """
    last, seen = look.last_event_at, look.seen
    moments = [] if last is None else [min(last, now)]
    for each in newest:
        moments.append(min(each.time, each.recorded_at, now))
        # One that was recorded of late may become visible before an older one.
        if abs(now - each.recorded_at) >= _SETTLED:
            seen = max(seen, each.number)
    last = max(moments, default=None)
    declared_at = min(look.declared_at, now)
    due_at = (declared_at if last is None else last) + timedelta(seconds=seconds)
    return Freshness(DatasetLook(declared_at, last, seen), due_at, due_at <= now)


def describe_freshness(dataset: str, seconds: float, look: DatasetLook) -> str:
    """Return what is missing, in one line."""
    last, age = look.last_event_at, timedelta(seconds=seconds)
    if last is None:
        since = look.declared_at.isoformat(timespec="seconds")
        return f"dataset {dataset} has had no event for {age}: none since {since}"
    return (
        f"dataset {dataset} has had no event for {age}: the last one was at "
        f"{last.isoformat(timespec='seconds')}"
    )


def alert_uri(kind: str, subject: str) -> str:
    """Return the dataset whose events announce alerts about a subject."""
    name = quote(subject, safe="")
    if len(name) > _MAX_SUBJECT:
        name = hashlib.sha256(subject.encode()).hexdigest()
    return f"{ALERTS_URI}{kind}/{name}"
