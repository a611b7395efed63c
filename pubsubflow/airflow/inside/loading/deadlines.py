"""Deadlines of Airflow's DAGs (`DeadlineAlert`), and the calls of what they name."""

import asyncio
import inspect
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk.module_loading import import_string

from pubsubflow.airflow.inside.loading.schedules import AddsNotes, is_interval
from pubsubflow.airflow.structure import DeadlineStructure

_SINCE = {
    "DagRunQueuedAtDeadline": "queued",
    "DagRunLogicalDateDeadline": "logical_time",
}
_LEAST = timedelta(seconds=1)


def deadlines_of(dag: Any, notes: AddsNotes) -> tuple[DeadlineStructure, ...]:
    """Return the deadlines of a DAG; what is not kept is a note."""
    return tuple(_found(dag, notes))


def listed(dag: Any) -> list[Any]:
    """Return the deadlines of a DAG as its file gives them."""
    given = getattr(dag, "deadline", None)
    if not given:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]


def _found(dag: Any, notes: AddsNotes) -> Iterator[DeadlineStructure]:
    for index, alert in enumerate(listed(dag)):
        made = _deadline(index, alert, intervals=is_interval(dag.timetable))
        if made is None:
            kind = type(alert.reference).__name__
            notes.add(f"a deadline of the DAG is not kept: {kind} with {alert.interval!r}")
        else:
            yield made


def _deadline(index: int, alert: Any, *, intervals: bool) -> DeadlineStructure | None:
    kind, interval = type(alert.reference).__name__, alert.interval
    if not isinstance(interval, timedelta):
        return None
    name = str(alert.callback.path).rpartition(".")[2]
    if kind == "FixedDatetimeDeadline":
        seconds = float(alert.reference.serialize_reference()["datetime"])
        moment = datetime.fromtimestamp(seconds, UTC) + interval - _LEAST
        return DeadlineStructure(index, _LEAST.total_seconds(), moment.isoformat(), name)
    since = _SINCE.get(kind)
    # The logical date of an interval is not the tick, which deadlines count from here.
    if since is None or interval < _LEAST or (since == "logical_time" and intervals):
        return None
    return DeadlineStructure(index, interval.total_seconds(), since, name)


def call_deadline(dag: Any, index: int, context: Any) -> None:
    """Call what a deadline names: with its keywords, and the context if it takes that."""
    callback = listed(dag)[index].callback
    call = import_string(str(callback.path))
    given = dict(callback.kwargs)
    if _takes_context(call):
        given["context"] = context
    made = call(**given)
    if inspect.isawaitable(made):
        asyncio.run(_awaited(made))


async def _awaited(made: Any) -> Any:
    return await made


def _takes_context(call: Any) -> bool:
    parameters = inspect.signature(call).parameters.values()
    return any(each.name == "context" or each.kind is each.VAR_KEYWORD for each in parameters)
