"""Timetables, `Cron` and `Every`: conditions that hold at moments in time."""

from datetime import timedelta

from pubsubflow.authoring.schedules.expressions import Schedule, SlotCounters, as_schedule
from pubsubflow.authoring.schedules.policies import latest
from pubsubflow.authoring.source_location import definition_error, suggestion
from pubsubflow.authoring.validation import Seconds
from pubsubflow.errors import DefinitionError
from pubsubflow.model.schedule import timetable
from pubsubflow.model.schedule.conditions import Condition, Tick


class TimeSchedule(Schedule):
    """A schedule that holds at the ticks of a timetable."""

    __slots__ = ("timetable",)

    timetable: timetable.Timetable

    def condition(self, slots: SlotCounters) -> Condition:
        """Return `Tick`."""
        return Tick(next(slots.ticks), self.timetable)

    @property
    def ticks_needed(self) -> int:
        """1: its own tick."""
        return 1


class Cron(TimeSchedule):
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


class Every(TimeSchedule):
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


class _Once(TimeSchedule):
    """Start one run: at the DAG's `start`, or when its first version is loaded."""

    __slots__ = ()

    def __init__(self) -> None:
        self.timetable = timetable.OnceSpec()

    def __repr__(self) -> str:
        return "'@once'"


_PRESETS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@midnight": "0 0 * * *",
}
_CONTINUOUS = Every(timedelta(seconds=1))


def written_schedule(value: object) -> Schedule:
    """Return the schedule that a user wrote, also as a string or a timedelta.

    Args:
        value: A condition; five fields of cron in UTC, `@hourly`, `@daily`, `@weekly`, `@monthly`,
            `@yearly`, `@annually`, `@midnight`, `@once` or `@continuous`; a timedelta; or a list of
            such.

    Raises:
        DefinitionError: It is none of them.
    """
    if isinstance(value, timedelta):
        return Every(value)
    if isinstance(value, str):
        return _written_text(value)
    if isinstance(value, list | tuple):
        plain = str | timedelta
        return as_schedule([written_schedule(x) if isinstance(x, plain) else x for x in value])
    return as_schedule(value)


def is_continuous(value: object) -> bool:
    """Return whether a schedule is written as `@continuous`."""
    return isinstance(value, str) and value.strip().lower() == "@continuous"


def _written_text(text: str) -> Schedule:
    word = text.strip().lower()
    if word == "@once":
        return _Once()
    if is_continuous(word):
        # While a run is active all ticks collapse into one, so that run follows upon run.
        return latest(_CONTINUOUS)
    if word in _PRESETS:
        return Cron(_PRESETS[word])
    if word.startswith("@"):
        known = [*_PRESETS, "@once", "@continuous"]
        raise definition_error(f"the schedule {text!r} is unknown{suggestion(word, known)}")
    if "://" in text:
        raise definition_error(f"the schedule {text!r} is a string; write Dataset({text!r})")
    return Cron(text)
