"""Alerts: deadlines of runs, freshness of datasets, and the events that announce them."""

import hashlib
from datetime import datetime, timedelta
from enum import StrEnum
from urllib.parse import quote

from msgspec import Struct

ALERTS_URI = "pubsubflow://alerts/"
_MAX_SUBJECT = 1300


class AlertKind(StrEnum):
    """What an alert is about."""

    DEADLINE = "deadline"
    FRESH = "fresh"
    CALLBACK = "callback"


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


class Freshness(Struct, frozen=True):
    """What becomes of a dataset's freshness.

    Attributes:
        stale: Its last event is too old.
        since: The moment from which the time counts.
        look_at: When to look again, while it is fresh.
    """

    stale: bool
    since: datetime
    look_at: datetime


def judge_freshness(
    seconds: float, since: datetime, new_event: datetime | None, now: datetime
) -> Freshness:
    """Return whether a dataset is stale, and when to look again.

    A moment that lies in the future was written before the clock was set back: it counts as now.

    Args:
        seconds: Without an event for that long, it is stale.
        since: From where the time counted at the last look; at first, when it was declared.
        new_event: When its newest event since then was recorded.
        now: The time.
    """
    since = min(since if new_event is None else new_event, now)
    due = since + timedelta(seconds=seconds)
    return Freshness(due <= now, since, due)


def alert_uri(kind: str, subject: str) -> str:
    """Return the dataset whose events announce alerts about a subject."""
    name = quote(subject, safe="")
    if len(name) > _MAX_SUBJECT:
        name = hashlib.sha256(subject.encode()).hexdigest()
    return f"{ALERTS_URI}{kind}/{name}"
