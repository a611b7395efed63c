"""Timetables, `Cron` and `Every`: conditions that hold at moments in time."""

from datetime import timedelta

from pubsubflow.authoring.schedules.expressions import Schedule, SlotCounters
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.validation import Seconds
from pubsubflow.errors import DefinitionError
from pubsubflow.model.schedule import timetable
from pubsubflow.model.schedule.conditions import Condition, Tick


class _Time(Schedule):
    __slots__ = ("timetable",)

    timetable: timetable.CronSpec | timetable.IntervalSpec

    def condition(self, slots: SlotCounters) -> Condition:
        """Return `Tick`."""
        return Tick(next(slots.ticks), self.timetable)

    @property
    def ticks_needed(self) -> int:
        """1: its own tick."""
        return 1


class Cron(_Time):
    """Start a run at the ticks of a cron expression.

    Args:
        expression: Five fields, for example `0 16 * * *`.
        tz: IANA name of the time zone.

    Raises:
        DefinitionError: The expression or the zone is invalid.
    """

    __slots__ = ()

    timetable: timetable.CronSpec

    def __init__(self, expression: str, tz: str = "UTC") -> None:
        if not isinstance(expression, str) or not isinstance(tz, str):
            raise definition_error(f"Cron takes two strings, not {expression!r}, {tz!r}")
        try:
            self.timetable = timetable.CronSpec(expression, tz)
        except DefinitionError as error:
            raise definition_error(error.message) from error

    def __repr__(self) -> str:
        return f"Cron({self.timetable.expression!r}, tz={self.timetable.tz!r})"


class Every(_Time):
    """Start a run at fixed intervals.

    Args:
        interval: A timedelta, or seconds; at least 0.1 s.

    Raises:
        DefinitionError: The interval is too short, or not an interval.
    """

    __slots__ = ()

    timetable: timetable.IntervalSpec

    def __init__(self, interval: Seconds) -> None:
        if isinstance(interval, timedelta):
            interval = interval.total_seconds()
        if isinstance(interval, bool) or not isinstance(interval, int | float):
            raise definition_error(f"Every takes a timedelta, not {interval!r}")
        try:
            self.timetable = timetable.IntervalSpec(float(interval))
        except DefinitionError as error:
            raise definition_error(error.message) from error

    def __repr__(self) -> str:
        return f"Every({timedelta(seconds=self.timetable.seconds)!r})"
