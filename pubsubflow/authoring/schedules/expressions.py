"""Schedule expressions: conditions that compose with `&`, `|` and `.or_after`."""

from datetime import timedelta
from itertools import count
from typing import Any, Literal, cast

from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.validation import Seconds, positive_seconds
from pubsubflow.model.schedule import conditions
from pubsubflow.model.schedule.conditions import Condition, inputs


# Numbers are given in the order in which model.schedule.conditions walks the expression.
class SlotCounters:
    """Counters that number the parts of one expression, from 0, left to right.

    Attributes:
        own: Slot of a tick → the timetable of one's own that gives it.
    """

    def __init__(self) -> None:
        self.inputs = count()
        self.ticks = count()
        self.deadlines = count()
        self.own: dict[int, Any] = {}


class Schedule:
    """Anything that can stand in `DAG(schedule=…)`; combine with `&` and `|`."""

    __slots__ = ()

    def __and__(self, other: object) -> "Schedule":
        """Hold when both sides hold."""
        return AllSides(self.side(), as_schedule(other).side())

    def __rand__(self, other: object) -> "Schedule":
        """Hold when both sides hold."""
        return AllSides(as_schedule(other).side(), self.side())

    def __or__(self, other: object) -> "Schedule":
        """Hold when either side holds."""
        return AnySide(self.side(), as_schedule(other).side())

    def __ror__(self, other: object) -> "Schedule":
        """Hold when either side holds."""
        return AnySide(as_schedule(other).side(), self.side())

    def where(self, expression: str) -> "Schedule":
        """Count only the events for which a CEL expression over `event` is true.

        Args:
            expression: For example `event.extra.rows > 0`; an event has `uri`, `partition`,
                `extra`, `time`, `source` and `id`.

        Raises:
            DefinitionError: It is not CEL, or this is not a dataset.
        """
        raise self._needs_dataset("where", repr(expression))

    def at_least(self, events: int) -> "Schedule":
        """Hold when at least so many events are pending.

        Raises:
            DefinitionError: It is not a whole number above zero, or this is not a dataset.
        """
        raise self._needs_dataset("at_least", repr(events))

    def within(self, age: Seconds) -> "Schedule":
        """Count only the events that are at most that old when the whole condition is met.

        Raises:
            DefinitionError: It is not a duration above zero, or this is not a dataset.
        """
        raise self._needs_dataset("within", repr(age))

    def or_after(self, wait: Seconds, then: Literal["run", "skip"] = "run") -> "Schedule":
        """Set a deadline for late inputs, counted from the first pending event.

        Args:
            wait: A timedelta, or seconds.
            then: `run` starts the run with the pending events; `skip` drops them.

        Raises:
            DefinitionError: The time is not above zero, or the condition holds no dataset.
        """
        return WithDeadline(self.side(), wait, then)

    def side(self) -> "Schedule":
        """Return it as a side of a larger expression.

        Raises:
            DefinitionError: It is a complete schedule already.
        """
        return self

    def condition(self, slots: SlotCounters) -> Condition:
        """Return the serialised expression."""
        raise NotImplementedError

    def compiled(self) -> conditions.ScheduleSpec:
        """Return the serialised form of the whole schedule."""
        return conditions.ScheduleSpec(self.condition(SlotCounters()))

    @property
    def ticks_needed(self) -> int:
        """How many different ticks must fall on one moment for it to hold."""
        return 0

    def _needs_dataset(self, method: str, argument: str) -> Exception:
        return definition_error(
            f".{method}({argument}) belongs to a dataset, not to {self!r}; "
            f"write it on each one, as in `(a.{method}({argument}) & b)`"
        )


class _Sides(Schedule):
    __slots__ = ("sides",)

    sides: tuple[Schedule, ...]

    def __init__(self, *sides: Schedule) -> None:
        # Sides of the same kind are merged: `a & b & c` is one condition with three sides.
        flat: list[Schedule] = []
        for side in sides:
            flat.extend(side.sides if isinstance(side, type(self)) else [side])
        self.sides = tuple(flat)


class AllSides(_Sides):
    """Holds when every side holds.

    Raises:
        DefinitionError: Two sides would have to tick at one moment.
    """

    __slots__ = ()

    def __init__(self, *sides: Schedule) -> None:
        super().__init__(*sides)
        # A tick holds at its own moment only; two of them hold together by chance alone.
        if self.ticks_needed > 1:
            raise definition_error(
                f"{self!r} waits for two ticks at one moment, which never comes; "
                "join timetables with `|`, or write one Cron for both"
            )

    def __repr__(self) -> str:
        return f"({' & '.join(map(repr, self.sides))})"

    def condition(self, slots: SlotCounters) -> Condition:
        """Return `AllOf` over the sides."""
        return conditions.AllOf(tuple(side.condition(slots) for side in self.sides))

    @property
    def ticks_needed(self) -> int:
        """The sum over its sides."""
        return sum(side.ticks_needed for side in self.sides)


class AnySide(_Sides):
    """Holds when at least one side holds."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"({' | '.join(map(repr, self.sides))})"

    def condition(self, slots: SlotCounters) -> Condition:
        """Return `AnyOf` over the sides."""
        return conditions.AnyOf(tuple(side.condition(slots) for side in self.sides))

    @property
    def ticks_needed(self) -> int:
        """The least of its sides."""
        return min(side.ticks_needed for side in self.sides)


class WithDeadline(Schedule):
    """Holds when its side holds, or when a time has passed since the first pending event.

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
            raise definition_error(f"or_after: then must be 'run' or 'skip', not {then!r}")
        if not has_inputs(side):
            raise definition_error(f"or_after: {side!r} holds no dataset that could be late")
        self._side = side
        self._then = then

    def __repr__(self) -> str:
        return f"{self._side!r}.or_after({timedelta(seconds=self._seconds)!r}, then={self._then!r})"

    def condition(self, slots: SlotCounters) -> Condition:
        """Return `OrAfter`; an outer one has a lower number than those in it."""
        # Before the side: the model yields an outer deadline before those inside of it.
        slot = next(slots.deadlines)
        return conditions.OrAfter(slot, self._side.condition(slots), self._seconds, self._then)

    @property
    def ticks_needed(self) -> int:
        """0 when it may run after the deadline; otherwise those of its side."""
        return self._side.ticks_needed if self._then == "skip" else 0


def has_inputs(side: Schedule) -> bool:
    """Return whether the expression holds a dataset."""
    return next(inputs(side.condition(SlotCounters())), None) is not None


def duration(value: object, what: str) -> float:
    """Return a duration in seconds.

    Raises:
        DefinitionError: It is not a duration above zero.
    """
    try:
        return positive_seconds(value)
    except (TypeError, ValueError) as error:
        raise definition_error(f"{what}: {value!r} {error}") from None


def as_schedule(value: object) -> Schedule:
    """Return a schedule: a list means that all its members must hold.

    Raises:
        DefinitionError: It is not a schedule.
    """
    if isinstance(value, Schedule):
        return value
    if isinstance(value, list | tuple):
        if not value:
            raise definition_error("the schedule is an empty list; use None for manual runs only")
        sides = [as_schedule(side) for side in cast("list[object]", value)]
        return sides[0] if len(sides) == 1 else AllSides(*(side.side() for side in sides))
    if value is None:
        raise definition_error(
            "None is not a condition; leave it out, or write schedule=None for no schedule"
        )
    if isinstance(value, str):
        raise definition_error(
            f"the schedule {value!r} is a string; write Cron({value!r}) or Dataset({value!r})"
        )
    raise definition_error(f"{value!r} is not a schedule; use datasets, Cron, Every or None")
