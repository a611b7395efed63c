"""Callbacks: functions and notifiers of DAG files that are called after an outcome."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from msgspec import Struct


class CallbackKind(StrEnum):
    """What a callback is called for."""

    SUCCESS = "on_success"
    FAILURE = "on_failure"
    RETRY = "on_retry"
    SKIPPED = "on_skipped"
    DEADLINE = "deadline"
    FRESH = "fresh"


class CallbackState(StrEnum):
    """The state of a call."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"


Callbacks = dict[str, tuple[str, ...]]
"""Kind → the names of what is called, in order, as people see them."""


class FailedTask(Struct, frozen=True):
    """A task of a run that has failed, with its error in one line."""

    node: int
    task_id: str
    map_index: int
    attempt: int
    error: str


class CallbackFacts(Struct, frozen=True, kw_only=True):
    """The facts that a callback gets: the run, the task, and how it ended.

    Attributes:
        kind: A `CallbackKind`.
        position: The number of the function in its list, from 0; for a deadline, after its number.
        number: Of the deadline in its DAG.
        state: The state of the task, or of the run for a callback of a run.
        error: The error in one line, of a task or of the run.
        failed: The failed tasks of a run that has failed.
        dataset: The dataset whose freshness is concerned.
        since: The moment of its last event.
        alert: The number of the alert, for deadlines and freshness.
        text: What happened, in one line.
        tries: The number of this try, from 1.
        call: The number of the call, the same over all tries.
    """

    kind: str
    position: int = 0
    number: int = 0
    dag_id: str | None = None
    run_id: str | None = None
    run_kind: str = ""
    params: Any = None
    logical_time: datetime | None = None
    partition: str | None = None
    cause: str = ""
    created_at: datetime | None = None
    node: int | None = None
    task_id: str | None = None
    map_index: int = -1
    attempt: int = 0
    state: str = ""
    error: str | None = None
    failed: tuple[FailedTask, ...] = ()
    dataset: str | None = None
    since: datetime | None = None
    alert: int | None = None
    text: str = ""
    tries: int = 1
    call: int = 0


def next_try(
    tries: int, *, retries: int, delay_seconds: float, now: datetime, factor: float = 3.0
) -> datetime | None:
    """Return when a failed call is tried again; None when it has been tried often enough.

    Args:
        tries: How often it has been tried, from 1.
        retries: Further tries after the first.
        delay_seconds: The delay before the second try.
        now: The time.
        factor: By which the delay grows with every further try.
    """
    if tries > retries:
        return None
    return now + timedelta(seconds=delay_seconds * factor ** (tries - 1))
