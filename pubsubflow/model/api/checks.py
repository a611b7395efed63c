"""Checks and the events that they hold as the API shows them."""

from datetime import datetime
from typing import Any

from msgspec import Struct

from pubsubflow.model.api.resources import EventView


class CheckView(Struct, frozen=True, kw_only=True):
    """A check of the events of a dataset.

    Attributes:
        name: Its name among all checks.
        dag_id: The DAG that it is: `check:` and its name.
        dataset: URI, or a pattern if `pattern` is true.
        blocking: Whether events are held until it has passed.
        severity: Of a failure, unless the result names another: `error` or `warn`.
        paused: Whether its DAG is paused: what is blocking then holds all events.
        missing: Whether it is not in the DAGs folder at the moment.
        held: Number of events that it holds, counted up to 1,001.
        last_outcome, last_severity, last_event_id, last_at: Its newest result.
    """

    name: str
    dag_id: str
    dataset: str
    pattern: bool = False
    blocking: bool
    severity: str
    description: str | None = None
    owner: str | None = None
    file: str
    line: int | None = None
    paused: bool
    missing: bool = False
    held: int
    last_outcome: str | None = None
    last_severity: str | None = None
    last_event_id: str | None = None
    last_at: datetime | None = None


class CheckResultView(Struct, frozen=True, kw_only=True):
    """What a check has found about an event.

    Attributes:
        check: Name of the check.
        outcome: `waiting`, `passed`, `failed`, `error`, `removed`.
        severity: Of a failure.
        holding: Whether the event is held by it.
        released: Whether an event that was held is in the log by now.
        released_by: Who released it although this check had not passed.
        note: Why it was released.
        tries: How often the event was checked, from 1.
        run_id: The run that checks it; None while the check is paused.
    """

    id: int
    check: str
    event_id: str
    dataset: str
    outcome: str
    severity: str
    blocking: bool
    holding: bool
    released: bool
    released_by: str | None = None
    note: str | None = None
    description: str = ""
    metadata: dict[str, Any] = {}
    tries: int = 1
    run_id: str | None = None
    created_at: datetime
    ended_at: datetime | None = None


class HoldView(Struct, frozen=True, kw_only=True):
    """A check that holds an event, and why; see `CheckResultView`."""

    check: str
    outcome: str
    severity: str
    description: str = ""
    tries: int = 1
    run_id: str | None = None


class HeldEventView(EventView, frozen=True, kw_only=True):
    """An event that checks hold: `recorded_at` is when it came.

    Attributes:
        checks: The checks that hold it.
    """

    checks: list[HoldView]


class SettledEvents(Struct, frozen=True, kw_only=True):
    """The events that a request has released, discarded or had checked again.

    Attributes:
        events: Their ids; events that were not held are left out.
        more: Whether there are more that the request has chosen: send it again.
    """

    events: list[str]
    more: bool = False
