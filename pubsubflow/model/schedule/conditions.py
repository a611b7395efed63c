"""Schedule specs: conditions over datasets and time, and the policy by which firings become runs.

These are values as users declared them; `condition_state` decides when a condition holds.
"""

from collections.abc import Callable, Iterator
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from pubsubflow.model.schedule.checks import CheckPolicy
from pubsubflow.model.schedule.partitions import Partitioning
from pubsubflow.model.schedule.timetable import CronSpec, IntervalSpec, TableSpec, Timetable


class DatasetInput(Struct, frozen=True, tag="input", omit_defaults=True):
    """One input of a condition: a dataset, or the datasets of a pattern.

    Attributes:
        index: Its number in the expression, from 0, left to right.
        uri: The dataset's normalised URI, or a pattern with `*` for many.
        pattern: Whether `uri` is a pattern.
        where: CEL expression that must be true of an event for it to count.
        at_least: Number of pending events that it requires.
        within_seconds: The greatest age of an event, by its time, when the whole holds.
    """

    index: int
    uri: str
    pattern: bool = False
    where: str | None = None
    at_least: int = 1
    within_seconds: float | None = None


class Tick(Struct, frozen=True, tag="tick"):
    """Holds at the ticks of a timetable, for that moment only.

    Attributes:
        slot: Number of the tick in the expression, from 0.
    """

    slot: int
    timetable: Timetable

    def continues(self, before: "Tick") -> bool:
        """Return whether it is the same as before, perhaps with further ticks."""
        if isinstance(self.timetable, TableSpec) and isinstance(before.timetable, TableSpec):
            return (self.slot, self.timetable.name) == (before.slot, before.timetable.name)
        return self == before


class AllOf(Struct, frozen=True, tag="all"):
    """Holds when every side holds."""

    sides: tuple["Condition", ...]


class AnyOf(Struct, frozen=True, tag="any"):
    """Holds when at least one side holds."""

    sides: tuple["Condition", ...]


class OrAfter(Struct, frozen=True, tag="or_after"):
    """Holds when its side does, or after a deadline for late inputs.

    The time counts from the moment at which the first event of its side became pending.

    Attributes:
        slot: Number of the deadline in the expression, from 0.
        then: `run` holds with the pending events; `skip` drops them.
    """

    slot: int
    side: "Condition"
    seconds: float
    then: Literal["run", "skip"] = "run"


Condition = DatasetInput | Tick | AllOf | AnyOf | OrAfter


class Each(Struct, frozen=True, tag="each"):
    """Each satisfaction of the condition is a run."""


class Batch(Struct, frozen=True, tag="batch"):
    """Events collect into one run, until it has enough or `linger_seconds` have passed."""

    max_events: int = 100
    linger_seconds: float = 10.0


class Debounce(Struct, frozen=True, tag="debounce", omit_defaults=True):
    """Events collect into one run until it has been quiet, or `max_wait_seconds` have passed."""

    quiet_seconds: float
    max_wait_seconds: float | None = None


class Latest(Struct, frozen=True, tag="latest"):
    """While a run is active, later events collapse into one next run."""


Policy = Each | Batch | Debounce | Latest | CheckPolicy


class ScheduleSpec(Struct, frozen=True, omit_defaults=True):
    """The schedule of a DAG.

    Attributes:
        condition: The condition that starts runs.
        policy: How satisfactions become runs.
        partitioning: Whether the condition holds per partition key.
    """

    condition: Condition
    policy: Policy = Each()
    partitioning: Partitioning | None = None


def parts(condition: Condition) -> Iterator[Condition]:
    """Yield the expression and every part of it, left to right."""
    # The order numbers inputs, ticks and deadlines: stored states depend on it.
    yield condition
    if isinstance(condition, AllOf | AnyOf):
        for side in condition.sides:
            yield from parts(side)
    elif isinstance(condition, OrAfter):
        yield from parts(condition.side)


def inputs(condition: Condition) -> Iterator[DatasetInput]:
    """Yield every input of the expression, left to right."""
    return (part for part in parts(condition) if isinstance(part, DatasetInput))


def ticks(condition: Condition) -> Iterator[Tick]:
    """Yield every tick of the expression, left to right."""
    return (part for part in parts(condition) if isinstance(part, Tick))


def map_ticks(condition: Condition, change: Callable[[Tick], Tick]) -> Condition:
    """Return the expression with each of its ticks changed."""
    match condition:
        case Tick():
            return change(condition)
        case AllOf() | AnyOf():
            sides = tuple(map_ticks(side, change) for side in condition.sides)
            return replace(condition, sides=sides)
        case OrAfter():
            return replace(condition, side=map_ticks(condition.side, change))
    return condition


def alternatives(condition: Condition, slot: int) -> list[Tick]:
    """Return the tick of a slot with those that `|` joins with it: any of them does as well."""
    sides = list(_joined(condition)) if isinstance(condition, AnyOf) else [condition]
    found = [side for side in sides if isinstance(side, Tick)]
    if any(each.slot == slot for each in found):
        return found
    for side in sides:
        inner = side.sides if isinstance(side, AllOf) else ()
        for part in (side.side,) if isinstance(side, OrAfter) else inner:
            found = alternatives(part, slot)
            if found:
                return found
    return []


def _joined(condition: AnyOf) -> Iterator[Condition]:
    for side in condition.sides:
        if isinstance(side, AnyOf):
            yield from _joined(side)
        else:
            yield side


def deadlines(condition: Condition) -> Iterator[OrAfter]:
    """Yield every deadline of the expression, outer before inner."""
    return (part for part in parts(condition) if isinstance(part, OrAfter))


def describe(condition: Condition) -> str:
    """Write the expression as users do: `(a & b) | c`."""
    match condition:
        case DatasetInput():
            return _describe_input(condition)
        case Tick():
            return _describe_timetable(condition.timetable)
        case OrAfter():
            side = describe(condition.side)
            return f"({side}).or_after({condition.seconds:g} s, then={condition.then!r})"
        case AllOf() | AnyOf():
            sign = " & " if isinstance(condition, AllOf) else " | "
            return sign.join(
                f"({describe(side)})" if isinstance(side, AllOf | AnyOf) else describe(side)
                for side in condition.sides
            )
    raise TypeError(condition)


def _describe_timetable(given: Timetable) -> str:
    match given:
        case CronSpec():
            return f"Cron({given.expression!r}, tz={given.tz!r})"
        case IntervalSpec():
            return f"Every({given.seconds:g} s)"
        case TableSpec():
            return given.name
    return "@once"


def _describe_input(given: DatasetInput) -> str:
    text = f"match({given.uri})" if given.pattern else given.uri
    if given.where is not None:
        text += f".where({given.where!r})"
    if given.at_least > 1:
        text += f".at_least({given.at_least})"
    if given.within_seconds is not None:
        text += f".within({given.within_seconds:g} s)"
    return text


def describe_schedule(schedule: ScheduleSpec | None) -> str:
    """Write a whole schedule as users do: `batch(partitioned(a & b), …)`."""
    if schedule is None:
        return ""
    text = describe(schedule.condition)
    if schedule.partitioning is not None:
        again = schedule.partitioning.again
        text = f"partitioned({text}{f', again={again!r}' if again else ''})"
    match schedule.policy:
        case Batch(max_events=most, linger_seconds=linger):
            return f"batch({text}, max_events={most}, linger={linger:g} s)"
        case Debounce(quiet_seconds=quiet):
            return f"debounce({text}, quiet={quiet:g} s)"
        case Latest():
            return f"latest({text})"
        case CheckPolicy(blocking=blocking, severity=severity):
            return f"check({text}, blocking={blocking}, severity={severity!r})"
    return text
