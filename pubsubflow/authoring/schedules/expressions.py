"""Schedules as values that compose: conditions with `&`, `|` and `.or_after`."""

from datetime import timedelta
from itertools import count
from typing import Literal, cast

from pubsubflow.authoring.source_location import mistake
from pubsubflow.authoring.validation import Seconds, positive_seconds
from pubsubflow.model.schedule import conditions
from pubsubflow.model.schedule.conditions import Condition, inputs


class Numbers:
    """Numbers the parts of one expression, from 0, left to right."""

    def __init__(self) -> None:
        self.places = count()
        self.ticks = count()
        self.deadlines = count()


class Schedule:
    """Anything that can stand in `DAG(schedule=…)`; combine with `&` and `|`."""

    __slots__ = ()

    def __and__(self, other: object) -> "Schedule":
        """Hold when both sides hold."""
        return Both(self.side(), as_schedule(other).side())

    def __rand__(self, other: object) -> "Schedule":
        """Hold when both sides hold."""
        return Both(as_schedule(other).side(), self.side())

    def __or__(self, other: object) -> "Schedule":
        """Hold when either side holds."""
        return Either(self.side(), as_schedule(other).side())

    def __ror__(self, other: object) -> "Schedule":
        """Hold when either side holds."""
        return Either(as_schedule(other).side(), self.side())

    def where(self, expression: str) -> "Schedule":
        """Let only events count for which a CEL expression over `event` is true.

        Args:
            expression: For example `event.extra.rows > 0`; an event has `uri`, `partition`,
                `extra`, `time`, `source` and `id`.

        Raises:
            DefinitionError: It is no CEL, or this is no dataset.
        """
        raise self._not_here("where", repr(expression))

    def at_least(self, events: int) -> "Schedule":
        """Hold when so many unconsumed events are there.

        Raises:
            DefinitionError: It is no whole number from 1 on, or this is no dataset.
        """
        raise self._not_here("at_least", repr(events))

    def within(self, age: Seconds) -> "Schedule":
        """Let only events count that are at most that old when the whole condition is met.

        Raises:
            DefinitionError: It is no duration above zero, or this is no dataset.
        """
        raise self._not_here("within", repr(age))

    def or_after(self, wait: Seconds, then: Literal["run", "skip"] = "run") -> "Schedule":
        """Settle it when inputs are late, counted from the first event that waits here.

        Args:
            wait: A timedelta, or seconds.
            then: `run` starts the run with what is there; `skip` drops what is there.

        Raises:
            DefinitionError: The time is not above zero, or there is no dataset to wait for.
        """
        return Late(self.side(), wait, then)

    def side(self) -> "Schedule":
        """Return it as a side of a larger expression.

        Raises:
            DefinitionError: It is a whole schedule already.
        """
        return self

    def condition(self, numbers: Numbers) -> Condition:
        """Return the serialised expression."""
        raise NotImplementedError

    def compiled(self) -> conditions.Schedule:
        """Return the serialised form of the whole schedule."""
        return conditions.Schedule(self.condition(Numbers()))

    @property
    def ticks_needed(self) -> int:
        """How many different times must come at one moment for it to hold."""
        return 0

    def _not_here(self, method: str, argument: str) -> Exception:
        return mistake(
            f".{method}({argument}) belongs to a dataset, not to {self!r}; "
            f"write it on each one, as in `(a.{method}({argument}) & b)`"
        )


class _Sides(Schedule):
    __slots__ = ("sides",)

    sides: tuple[Schedule, ...]

    def __init__(self, *sides: Schedule) -> None:
        flat: list[Schedule] = []
        for side in sides:
            flat.extend(side.sides if isinstance(side, type(self)) else [side])
        self.sides = tuple(flat)


class Both(_Sides):
    """Every side must hold.

    Raises:
        DefinitionError: Two sides would have to tick at one moment.
    """

    __slots__ = ()

    def __init__(self, *sides: Schedule) -> None:
        super().__init__(*sides)
        if self.ticks_needed > 1:
            raise mistake(
                f"{self!r} waits for two times at one moment, which never comes; "
                "join times with `|`, or write one Cron for both"
            )

    def __repr__(self) -> str:
        return f"({' & '.join(map(repr, self.sides))})"

    def condition(self, numbers: Numbers) -> Condition:
        """Return `AllOf` over the sides."""
        return conditions.AllOf(tuple(side.condition(numbers) for side in self.sides))

    @property
    def ticks_needed(self) -> int:
        """All that its sides need."""
        return sum(side.ticks_needed for side in self.sides)


class Either(_Sides):
    """At least one side must hold."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"({' | '.join(map(repr, self.sides))})"

    def condition(self, numbers: Numbers) -> Condition:
        """Return `AnyOf` over the sides."""
        return conditions.AnyOf(tuple(side.condition(numbers) for side in self.sides))

    @property
    def ticks_needed(self) -> int:
        """What the side needs that needs least."""
        return min(side.ticks_needed for side in self.sides)


class Late(Schedule):
    """A side must hold, or some time must pass after its first event.

    Args:
        side: A condition with at least one dataset.
        wait: A timedelta, or seconds.
        then: `run` or `skip`.

    Raises:
        DefinitionError: One of them is bad.
    """

    __slots__ = ("_seconds", "_side", "_then")

    def __init__(self, side: Schedule, wait: Seconds, then: Literal["run", "skip"]) -> None:
        self._seconds = duration(wait, "or_after")
        if then not in ("run", "skip"):
            raise mistake(f"or_after: then must be 'run' or 'skip', not {then!r}")
        if not has_inputs(side):
            raise mistake(f"or_after: {side!r} waits for no dataset that could be late")
        self._side = side
        self._then = then

    def __repr__(self) -> str:
        return f"{self._side!r}.or_after({timedelta(seconds=self._seconds)!r}, then={self._then!r})"

    def condition(self, numbers: Numbers) -> Condition:
        """Return `OrAfter`; an outer one has a lower number than those in it."""
        slot = next(numbers.deadlines)
        return conditions.OrAfter(slot, self._side.condition(numbers), self._seconds, self._then)

    @property
    def ticks_needed(self) -> int:
        """None when it may run without; otherwise what its side needs."""
        return self._side.ticks_needed if self._then == "skip" else 0


def has_inputs(side: Schedule) -> bool:
    """Return whether a dataset stands in the expression."""
    return next(inputs(side.condition(Numbers())), None) is not None


def duration(value: object, what: str) -> float:
    """Return a duration in seconds.

    Raises:
        DefinitionError: It is none, or not above zero.
    """
    try:
        return positive_seconds(value)
    except (TypeError, ValueError) as error:
        raise mistake(f"{what}: {value!r} {error}") from None


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
        sides = [as_schedule(side) for side in cast("list[object]", value)]
        return sides[0] if len(sides) == 1 else Both(*(side.side() for side in sides))
    if value is None:
        raise mistake("None is no condition; leave it out, or write schedule=None for no schedule")
    if isinstance(value, str):
        raise mistake(
            f"the schedule {value!r} is a string; write Cron({value!r}) or Dataset({value!r})"
        )
    raise mistake(f"{value!r} is no schedule; use datasets, Cron, Every or None")
