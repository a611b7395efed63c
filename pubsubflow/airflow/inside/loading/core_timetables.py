"""Core's form of timetables: what the SDK's ones say of dates is computed by these."""

from typing import Any

from airflow.serialization.encoders import coerce_to_core_timetable

# Id of a timetable → itself, so that the id stays its own, and core's form of it.
_made: dict[int, tuple[Any, Any]] = {}


def core_timetable(table: Any) -> Any:
    """Return core's form of a timetable, which is made once for each.

    Args:
        table: A timetable of a DAG's file; it is kept, as the file is for the life of a process.
    """
    known = _made.get(id(table))
    if known is None:
        known = _made[id(table)] = (table, coerce_to_core_timetable(table))
    return known[1]
