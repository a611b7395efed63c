"""Schedules over time, as users write them."""

from datetime import timedelta

from pubsubflow.authoring.schedules.expressions import Numbers, Schedule
from pubsubflow.authoring.source_location import mistake
from pubsubflow.authoring.validation import Seconds
from pubsubflow.errors import DefinitionError
from pubsubflow.model.schedule import timetable
from pubsubflow.model.schedule.conditions import Condition, Tick


class _Time(Schedule):
    __slots__ = ("timetable",)

    timetable: timetable.Cron | timetable.Every

    def __repr__(self) -> str:
        return repr(self.timetable)

    def condition(self, numbers: Numbers) -> Condition:
        """Return `Tick`."""
        return Tick(next(numbers.ticks), self.timetable)

    @property
    def ticks_needed(self) -> int:
        """One: its own."""
        return 1


class Cron(_Time):
    """Start a run at the ticks of a cron expression.

    Args:
        expression: Five fields, for example `0 16 * * *`.
        tz: IANA name of the time zone.

    Raises:
        DefinitionError: The expression or the zone is bad.
    """

    __slots__ = ()

    def __init__(self, expression: str, tz: str = "UTC") -> None:
        if not isinstance(expression, str) or not isinstance(tz, str):
            raise mistake(f"Cron takes two strings, not {expression!r}, {tz!r}")
        try:
            self.timetable = timetable.Cron(expression, tz)
        except DefinitionError as error:
            raise mistake(error.message) from error


class Every(_Time):
    """Start a run at fixed intervals.

    Args:
        interval: A timedelta, or seconds; at least 0.1 s.

    Raises:
        DefinitionError: The interval is too short or no interval.
    """

    __slots__ = ()

    def __init__(self, interval: Seconds) -> None:
        if isinstance(interval, timedelta):
            interval = interval.total_seconds()
        if isinstance(interval, bool) or not isinstance(interval, int | float):
            raise mistake(f"Every takes a timedelta, not {interval!r}")
        try:
            self.timetable = timetable.Every(float(interval))
        except DefinitionError as error:
            raise mistake(error.message) from error
