"""Schedules as values that compose: datasets with `&` and `|`, cron expressions, intervals."""

from collections.abc import Iterator
from datetime import timedelta

from pubsubflow.authoring.places import mistake
from pubsubflow.errors import DefinitionError
from pubsubflow.model import timetable
from pubsubflow.model.conditions import AllOf, AnyOf, Condition

Timetable = timetable.Cron | timetable.Every


class Schedule:
    """Anything that can stand in `DAG(schedule=…)`; combine with `&` and `|`."""

    __slots__ = ()

    def __and__(self, other: object) -> "Schedule":
        """Hold when both sides hold."""
        return Both(self, as_schedule(other))

    def __rand__(self, other: object) -> "Schedule":
        """Hold when both sides hold."""
        return Both(as_schedule(other), self)

    def __or__(self, other: object) -> "Schedule":
        """Hold when either side holds."""
        return Either(self, as_schedule(other))

    def __ror__(self, other: object) -> "Schedule":
        """Hold when either side holds."""
        return Either(as_schedule(other), self)

    def condition(self, places: Iterator[int]) -> Condition:
        """Return the expression over datasets, its places numbered from `places`."""
        raise NotImplementedError


class _Sides(Schedule):
    __slots__ = ("sides",)

    sides: tuple[Schedule, ...]

    def __init__(self, *sides: Schedule) -> None:
        flat: list[Schedule] = []
        for side in sides:
            flat.extend(side.sides if type(side) is type(self) else [side])
        self.sides = tuple(flat)


class Both(_Sides):
    """Every side must hold."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"({' & '.join(map(repr, self.sides))})"

    def condition(self, places: Iterator[int]) -> Condition:
        """Return `AllOf` over the sides."""
        return AllOf(tuple(side.condition(places) for side in self.sides))


class Either(_Sides):
    """At least one side must hold."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"({' | '.join(map(repr, self.sides))})"

    def condition(self, places: Iterator[int]) -> Condition:
        """Return `AnyOf` over the sides."""
        return AnyOf(tuple(side.condition(places) for side in self.sides))


class _Time(Schedule):
    __slots__ = ("timetable",)

    timetable: Timetable

    def condition(self, places: Iterator[int]) -> Condition:  # noqa: ARG002 - the base's signature
        """Raise: a time is no condition over datasets."""
        raise mistake(
            f"{self!r} can stand alone or beside datasets as `{self!r} | datasets`; "
            "`&` between time and datasets is not available"
        )


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

    def __repr__(self) -> str:
        return repr(self.timetable)


class Every(_Time):
    """Start a run at fixed intervals.

    Args:
        interval: A timedelta, or seconds; at least 0.1 s.

    Raises:
        DefinitionError: The interval is too short or no interval.
    """

    __slots__ = ()

    def __init__(self, interval: timedelta | float) -> None:
        if isinstance(interval, timedelta):
            interval = interval.total_seconds()
        if isinstance(interval, bool) or not isinstance(interval, int | float):
            raise mistake(f"Every takes a timedelta, not {interval!r}")
        try:
            self.timetable = timetable.Every(float(interval))
        except DefinitionError as error:
            raise mistake(error.message) from error

    def __repr__(self) -> str:
        return repr(self.timetable)


def as_schedule(value: object) -> Schedule:
    """Return a schedule: a list means that all its members must hold.

    Raises:
        DefinitionError: It is no schedule.
    """
    if isinstance(value, Schedule):
        return value
    if isinstance(value, list | tuple):
        if not value:
            raise mistake("the schedule is an empty list; use None to run only when asked")
        sides = [as_schedule(side) for side in value]
        return sides[0] if len(sides) == 1 else Both(*sides)
    if isinstance(value, str):
        raise mistake(
            f"the schedule {value!r} is a string; write Cron({value!r}) or Dataset({value!r})"
        )
    raise mistake(f"{value!r} is no schedule; use datasets, Cron, Every or None")


def split(schedule: object, places: Iterator[int]) -> tuple[Condition | None, Timetable | None]:
    """Return the datasets' part and the time's part of a schedule.

    Raises:
        DefinitionError: It is no schedule, or joins time and datasets in a way that cannot be.
    """
    if schedule is None:
        return None, None
    schedule = as_schedule(schedule)
    if isinstance(schedule, _Time):
        return None, schedule.timetable
    if not isinstance(schedule, Either):
        return schedule.condition(places), None
    times = [side for side in schedule.sides if isinstance(side, _Time)]
    rest = [side for side in schedule.sides if not isinstance(side, _Time)]
    if len(times) > 1 or not rest:
        raise mistake("a schedule can hold one Cron or Every only; make a DAG for each")
    condition = rest[0].condition(places) if len(rest) == 1 else Either(*rest).condition(places)
    return condition, times[0].timetable if times else None
