"""Core's form of timetables: what the SDK's ones say of dates is computed by these."""

from typing import Any

from airflow.sdk import EventsTimetable
from airflow.serialization.encoders import coerce_to_core_timetable
from airflow.timetables import events

# Id of a timetable → itself, so that the id stays its own, and core's form of it.
_made: dict[int, tuple[Any, Any]] = {}


def core_timetable(table: Any) -> Any:
    """Return core's form of a timetable, which is made once for each.

    Args:
        table: A timetable of a DAG's file; it is kept, as the file is for the life of a process.
    """
    known = _made.get(id(table))
    if known is None:
        known = _made[id(table)] = (table, _core_of(table))
    return known[1]


def _core_of(table: Any) -> Any:
    if not isinstance(table, EventsTimetable):
        return coerce_to_core_timetable(table)
    # What Airflow 3.2 and 3.3 write of it they cannot read: it lacks the summary.
    return events.EventsTimetable(
        table.event_dates,
        restrict_to_events=table.restrict_to_events,
        description=table.description,
    )
