"""Dates of runs as Airflow's tasks see them: the tick, or the start of the interval it ends."""

from datetime import datetime, timedelta

from pubsubflow.model.schedule.conditions import ScheduleSpec, Tick
from pubsubflow.model.schedule.timetable import (
    IntervalSpec,
    Timetable,
    latest_tick,
    next_tick,
)

_MOMENT = timedelta(microseconds=1)
_LONGEST = timedelta(days=5 * 366)


def tick_of(schedule: ScheduleSpec | None, date: datetime) -> datetime:
    """Return the tick of the run that has a date.

    Args:
        schedule: That of a DAG whose dates are starts of intervals; None for others.
        date: The date.
    """
    table = _timetable(schedule)
    if table is None:
        return date
    if isinstance(table, IntervalSpec):
        return date + timedelta(seconds=table.seconds)
    return next_tick(table, date, None, None) or date


def date_of(schedule: ScheduleSpec | None, tick: datetime) -> datetime:
    """Return the date of the run that a tick makes; see `tick_of`."""
    table = _timetable(schedule)
    if table is None:
        return tick
    if isinstance(table, IntervalSpec):
        return tick - timedelta(seconds=table.seconds)
    return latest_tick(table, tick - _LONGEST, tick - _MOMENT, None, None) or tick


def _timetable(schedule: ScheduleSpec | None) -> Timetable | None:
    if schedule is None:
        return None
    condition = schedule.condition
    return condition.timetable if isinstance(condition, Tick) else None
