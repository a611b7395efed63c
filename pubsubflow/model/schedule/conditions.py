"""Schedules as values: over datasets and over time, and how firings become runs.

What holds when is decided in `cells`; here is only what users have said.
"""

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from pubsubflow.model.schedule.partitions import Partitioning
from pubsubflow.model.schedule.timetable import Cron, Every


class Input(Struct, frozen=True, tag="input", omit_defaults=True):
    """A place where a dataset stands.

    Attributes:
        place: Number of the place in the expression, from 0, left to right.
        uri: The dataset's normalised URI, or a pattern with `*` for many.
        pattern: Whether `uri` is a pattern.
        where: CEL expression that an event must meet to count here.
        at_least: Number of pending events that it takes.
        within_seconds: How old an event may be, by its time, when the whole holds.
    """

    place: int
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
    timetable: Cron | Every


class AllOf(Struct, frozen=True, tag="all"):
    """Holds when every side holds."""

    sides: tuple["Condition", ...]


class AnyOf(Struct, frozen=True, tag="any"):
    """Holds when at least one side holds."""

    sides: tuple["Condition", ...]


class OrAfter(Struct, frozen=True, tag="or_after"):
    """Holds when its side does, or is settled when the missing inputs are late.

    The time runs from the moment at which its first event became pending.

    Attributes:
        slot: Number of the deadline in the expression, from 0.
        then: `run` holds with what is there; `skip` drops what is there.
    """

    slot: int
    side: "Condition"
    seconds: float
    then: Literal["run", "skip"] = "run"


Condition = Input | Tick | AllOf | AnyOf | OrAfter


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


Policy = Each | Batch | Debounce | Latest


class Schedule(Struct, frozen=True, omit_defaults=True):
    """When runs of a DAG start.

    Attributes:
        condition: What must hold.
        policy: How satisfactions become runs.
        partitioning: Whether the condition holds per partition key.
    """

    condition: Condition
    policy: Policy = Each()
    partitioning: Partitioning | None = None


def parts(condition: Condition) -> Iterator[Condition]:
    """Yield the expression and every part of it, left to right."""
    yield condition
    if isinstance(condition, AllOf | AnyOf):
        for side in condition.sides:
            yield from parts(side)
    elif isinstance(condition, OrAfter):
        yield from parts(condition.side)


def inputs(condition: Condition) -> Iterator[Input]:
    """Yield every place of the expression, left to right."""
    return (part for part in parts(condition) if isinstance(part, Input))


def ticks(condition: Condition) -> Iterator[Tick]:
    """Yield every tick of the expression, left to right."""
    return (part for part in parts(condition) if isinstance(part, Tick))


def deadlines(condition: Condition) -> Iterator[OrAfter]:
    """Yield every deadline of the expression, outer before inner."""
    return (part for part in parts(condition) if isinstance(part, OrAfter))


def describe(condition: Condition) -> str:
    """Write the expression as users do: `(a & b) | c`."""
    match condition:
        case Input():
            return _describe_input(condition)
        case Tick(timetable=Cron() as cron):
            return f"Cron({cron.expression!r}, tz={cron.tz!r})"
        case Tick(timetable=Every() as every):
            return f"Every({every.seconds:g} s)"
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


def _describe_input(place: Input) -> str:
    text = f"match({place.uri})" if place.pattern else place.uri
    if place.where is not None:
        text += f".where({place.where!r})"
    if place.at_least > 1:
        text += f".at_least({place.at_least})"
    if place.within_seconds is not None:
        text += f".within({place.within_seconds:g} s)"
    return text


def describe_schedule(schedule: Schedule | None) -> str:
    """Write a whole schedule as users do: `batch(partitioned(a & b), …)`."""
    if schedule is None:
        return ""
    text = describe(schedule.condition)
    if schedule.partitioning is not None:
        text = f"partitioned({text})"
    match schedule.policy:
        case Batch(max_events=most, linger_seconds=linger):
            return f"batch({text}, max_events={most}, linger={linger:g} s)"
        case Debounce(quiet_seconds=quiet):
            return f"debounce({text}, quiet={quiet:g} s)"
        case Latest():
            return f"latest({text})"
    return text
