"""Schedules as Python: what a user may put into `DAG(schedule=…)` for the same schedule."""

from datetime import timedelta

from pubsubflow.model.schedule.checks import CheckPolicy
from pubsubflow.model.schedule.conditions import (
    AllOf,
    AnyOf,
    Batch,
    Condition,
    DatasetInput,
    Debounce,
    Latest,
    OrAfter,
    ScheduleSpec,
)
from pubsubflow.model.schedule.partitions import (
    FanOut,
    Fixed,
    Identity,
    Mapper,
    Partitioning,
    Product,
    RollUp,
)
from pubsubflow.model.schedule.timetable import CronSpec, IntervalSpec, OnceSpec, Timetable

_UNITS = (("days", 86400), ("hours", 3600), ("minutes", 60))


def python_text(schedule: ScheduleSpec) -> str | None:
    """Return the schedule as Python; None if it has a part that only its own file can write.

    Such parts are timetables of one's own, `@once` beside other conditions, and checks.
    """
    try:
        return _schedule(schedule)
    except LookupError:
        return None


def _schedule(schedule: ScheduleSpec) -> str:
    condition = schedule.condition
    # `@once` is a word in place of a whole schedule; there is no expression for it.
    once = not isinstance(condition, DatasetInput | AllOf | AnyOf | OrAfter) and isinstance(
        condition.timetable, OnceSpec
    )
    text = '"@once"' if once else _condition(condition)
    if schedule.partitioning is not None:
        text = _partitioned(text, schedule.partitioning)
    match schedule.policy:
        case CheckPolicy():
            raise LookupError(schedule.policy)
        case Batch(max_events=most, linger_seconds=linger):
            return f"batch({text}, max_events={most}, linger={_duration(linger)})"
        case Debounce(quiet_seconds=quiet, max_wait_seconds=wait):
            more = "" if wait is None else f", max_wait={_duration(wait)}"
            return f"debounce({text}, quiet={_duration(quiet)}{more})"
        case Latest():
            return f"latest({text})"
    return text


def _condition(condition: Condition) -> str:
    match condition:
        case DatasetInput():
            return _dataset(condition)
        case OrAfter(side=side, seconds=seconds, then=then):
            return f"{_side(side)}.or_after({_duration(seconds)}, then={then!r})"
        case AllOf(sides=sides):
            return " & ".join(map(_side, sides))
        case AnyOf(sides=sides):
            return " | ".join(map(_side, sides))
    return _timetable(condition.timetable)


def _side(condition: Condition) -> str:
    text = _condition(condition)
    return f"({text})" if isinstance(condition, AllOf | AnyOf) else text


def _dataset(given: DatasetInput) -> str:
    text = f"Dataset.match({given.uri!r})" if given.pattern else f"Dataset({given.uri!r})"
    if given.where is not None:
        text += f".where({given.where!r})"
    if given.at_least > 1:
        text += f".at_least({given.at_least})"
    if given.within_seconds is not None:
        text += f".within({_duration(given.within_seconds)})"
    return text


def _timetable(given: Timetable) -> str:
    match given:
        case CronSpec(expression=expression, tz=tz):
            return f"Cron({expression!r}{_zone(tz)})"
        case IntervalSpec(seconds=seconds):
            return f"Every({_duration(seconds)})"
    raise LookupError(given)


def _partitioned(text: str, given: Partitioning) -> str:
    by = _mapper(given.by)
    if given.by_uri:
        by = ", ".join(f"{uri!r}: {_mapper(each)}" for uri, each in given.by_uri.items())
        by = f"{{{by}}}"
    more = "" if given.by == Identity() and not given.by_uri else f", by={by}"
    if given.at_least is not None:
        more += f", at_least={given.at_least}"
    if given.again is not None:
        more += f", again={given.again!r}"
    return f"partitioned({text}{more})"


def _mapper(given: Mapper) -> str:
    match given:
        case Fixed(key=key):
            return f"fixed({key!r})"
        case RollUp(to=to, of=of, tz=tz):
            return f"roll_up(to={to!r}, of={of!r}{_zone(tz)})"
        case FanOut(table=None, of=of, to=to, tz=tz):
            return f"fan_out(of={of!r}, to={to!r}{_zone(tz)})"
        case FanOut(table=table):
            return f"fan_out(table={ {key: list(keys) for key, keys in (table or {}).items()}!r})"
        case Product(parts=parts, separator=separator):
            more = "" if separator == "|" else f", separator={separator!r}"
            return f"product({', '.join(map(_mapper, parts))}{more})"
        case Identity():
            return "identity"
    raise LookupError(given)


def _zone(tz: str) -> str:
    return "" if tz == "UTC" else f", tz={tz!r}"


def _duration(seconds: float) -> str:
    """Write a duration in the largest unit that leaves a whole number."""
    for name, size in _UNITS:
        if seconds % size == 0:
            return f"timedelta({name}={int(seconds // size)})"
    whole = int(seconds) if seconds == int(seconds) else timedelta(seconds=seconds).total_seconds()
    return f"timedelta(seconds={whole!r})"
