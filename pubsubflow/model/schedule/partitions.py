"""Partition mappers: from the partition keys of events to those of runs, and complete windows.

Keys of time are in ISO 8601: hour `2026-11-20T14` (with an offset or Z, or else in the window's
zone), day `2026-11-20`, week `2026-W47`, month `2026-11`, year `2026`. A local day has 23, 24 or 25
hours; the hour that the clock shows twice at the end of summer time differs by its offset.
"""

import itertools
import math
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

from pubsubflow.errors import DefinitionError, InvalidInput
from pubsubflow.model.schedule.written_periods import (
    KeyRollUp,
    PeriodRollUp,
    WrittenMapper,
    map_written,
    members_of,
    needed_of,
)

Unit = Literal["hour", "day", "week", "month", "year"]
Again = Literal["each", "never"]
ROLL_UPS: dict[str, tuple[str, ...]] = {
    "hour": ("day", "week", "month", "year"),
    "day": ("week", "month", "year"),
    "month": ("year",),
}
_HOUR = timedelta(hours=1)
_HOUR_KEY = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2})(?::\d{2}){0,2}(Z|[+-]\d{2}:?\d{2})?\Z")
_WEEK_KEY = re.compile(r"(\d{4})-W(\d{2})\Z")
_MONTHS = 12


class Identity(Struct, frozen=True, tag="identity"):
    """Maps a key to itself."""


class Fixed(Struct, frozen=True, tag="fixed"):
    """Maps every key to one key."""

    key: str


class RollUp(Struct, frozen=True, tag="roll_up"):
    """Maps smaller windows to the larger one: hour → day → week → month → year.

    Attributes:
        to: The window of the run.
        of: The windows of the events.
        tz: IANA zone in which days begin.
    """

    to: Unit
    of: Unit
    tz: str = "UTC"

    def __post_init__(self) -> None:
        """Raise DefinitionError for windows that do not nest or an unknown zone."""
        if self.to not in ROLL_UPS.get(self.of, ()):
            raise DefinitionError(f"{self.of}s do not roll up to a {self.to}")
        _zone(self.tz)


class FanOut(Struct, frozen=True, tag="fan_out", omit_defaults=True):
    """Maps one key to several: a window to the smaller ones in it, or by a table.

    Attributes:
        of, to, tz: The larger and the smaller window, and their zone.
        table: Key → keys; used when there is one.
    """

    of: Unit = "day"
    to: Unit = "hour"
    tz: str = "UTC"
    table: dict[str, tuple[str, ...]] | None = None

    def __post_init__(self) -> None:
        """Raise DefinitionError for windows that do not nest or an unknown zone."""
        if self.table is None and self.of not in ROLL_UPS.get(self.to, ()):
            raise DefinitionError(f"a {self.of} does not consist of {self.to}s")
        _zone(self.tz)


class Product(Struct, frozen=True, tag="product"):
    """Maps keys of several dimensions, such as `2026-11-20|eu`, by one mapper each."""

    parts: tuple["Mapper", ...]
    separator: str = "|"


Mapper = Identity | Fixed | RollUp | FanOut | Product | WrittenMapper


class Partitioning(Struct, frozen=True, omit_defaults=True):
    """The partitioning of a schedule: its condition must hold within one partition.

    Attributes:
        by: How events' keys map to runs' keys.
        by_uri: Other mappers for single datasets.
        at_least: How many of a window's parts suffice; None for all.
        again: Whether each satisfaction of a key is a run, or never another one after the first;
            None for `never` where keys are windows that roll up, `each` elsewhere.
    """

    by: Mapper = Identity()
    by_uri: dict[str, Mapper] = {}
    at_least: int | None = None
    again: Again | None = None

    @property
    def runs_once(self) -> bool:
        """Whether a key has one run only."""
        if self.again is not None:
            return self.again == "never"
        return any(map(rolls_up, (self.by, *self.by_uri.values())))

    def mapper(self, uri: str) -> Mapper:
        """Return the mapper of a dataset."""
        return self.by_uri.get(uri, self.by)


def rolls_up(mapper: Mapper) -> bool:
    """Return whether a mapper maps several windows to a larger one."""
    if isinstance(mapper, Product):
        return any(map(rolls_up, mapper.parts))
    return isinstance(mapper, RollUp | PeriodRollUp | KeyRollUp)


def map_key(mapper: Mapper, key: str) -> tuple[tuple[str, str], ...]:
    """Return the runs' keys to which an event's key maps, each with the event's canonical key.

    Raises:
        InvalidInput: The key does not have the form that the mapper takes.
    """
    try:
        if isinstance(mapper, WrittenMapper):
            return map_written(mapper, key)
        return _map_key(mapper, key)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"partition {key!r} is beyond the calendar: {error}") from error


def _map_key(
    mapper: Identity | Fixed | RollUp | FanOut | Product, key: str
) -> tuple[tuple[str, str], ...]:
    match mapper:
        case Identity():
            return ((key, key),)
        case Fixed():
            return ((mapper.key, key),)
        case RollUp():
            start = _start(mapper.of, key, mapper.tz)
            return ((_key(mapper.to, start, mapper.tz), _canonical(mapper.of, start, mapper.tz)),)
        case FanOut():
            if mapper.table is not None:
                return tuple((to, key) for to in mapper.table.get(key, ()))
            return tuple((part, key) for part in _parts(mapper.of, mapper.to, key, mapper.tz))
        case Product():
            return _map_product(mapper, key)


def parts_of(mapper: Mapper, key: str) -> int:
    """Return how many different event keys roll up to a run's key; 1 without a roll-up.

    Raises:
        InvalidInput: The mapper maps no key to it.
    """
    if isinstance(mapper, RollUp):
        try:
            return sum(1 for _ in _parts(mapper.to, mapper.of, key, mapper.tz))
        except (ValueError, OverflowError) as error:
            raise InvalidInput(f"partition {key!r} is beyond the calendar: {error}") from error
    if isinstance(mapper, Product):
        pieces = _pieces(mapper, key)
        return math.prod(map(parts_of, mapper.parts, pieces))
    return needed_of(mapper, key) if isinstance(mapper, PeriodRollUp | KeyRollUp) else 1


def keys_of(mapper: Mapper, key: str) -> Iterator[str]:
    """Yield the event keys that roll up to a run's key, in order; the key itself without a roll-up.

    Raises:
        InvalidInput: The mapper maps no key to it.
    """
    if isinstance(mapper, RollUp):
        yield from _parts(mapper.to, mapper.of, key, mapper.tz)
    elif isinstance(mapper, Product):
        pieces = zip(mapper.parts, _pieces(mapper, key), strict=True)
        found = itertools.product(*(keys_of(part, piece) for part, piece in pieces))
        yield from map(mapper.separator.join, found)
    elif isinstance(mapper, PeriodRollUp | KeyRollUp):
        yield from members_of(mapper, key)
    else:
        yield key


def _map_product(mapper: Product, key: str) -> tuple[tuple[str, str], ...]:
    pieces = _pieces(mapper, key)
    found: list[tuple[str, str]] = [("", "")]
    for number, (part, piece) in enumerate(zip(mapper.parts, pieces, strict=True)):
        joint = mapper.separator if number else ""
        found = [
            (to + joint + next_to, own + joint + next_own)
            for to, own in found
            for next_to, next_own in map_key(part, piece)
        ]
    return tuple(found)


def _pieces(mapper: Product, key: str) -> list[str]:
    pieces = key.split(mapper.separator)
    if len(pieces) != len(mapper.parts):
        raise InvalidInput(
            f"partition {key!r} has {len(pieces)} parts between {mapper.separator!r}, "
            f"not {len(mapper.parts)}"
        )
    return pieces


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise DefinitionError(
            f"unknown time zone {name!r}; use an IANA name such as 'Europe/Warsaw'"
        ) from error


def _start(unit: str, key: str, tz: str) -> datetime:
    """Return the UTC moment at which a window begins."""
    try:
        if unit == "hour":
            found = _HOUR_KEY.match(key)
            if found is None:
                raise ValueError("write it as 2026-11-20T14")  # noqa: TRY301 - named below
            local = datetime.fromisoformat(f"{found[1]}:00{found[2] or ''}")
            if local.tzinfo is None:
                local = local.replace(tzinfo=_zone(tz))
            return local.astimezone(UTC)
        return _midnight(_first_day(unit, key), tz)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"partition {key!r} is not a {unit}: {error}") from error


def _first_day(unit: str, key: str) -> date:
    if unit == "day":
        return date.fromisoformat(key)
    if unit == "week":
        found = _WEEK_KEY.match(key)
        if found is None:
            raise ValueError("write it as 2026-W47")
        return date.fromisocalendar(int(found[1]), int(found[2]), 1)
    if unit == "month":
        return date.fromisoformat(f"{key}-01")
    return date.fromisoformat(f"{key}-01-01")


def _midnight(day: date, tz: str) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=_zone(tz)).astimezone(UTC)


def _key(unit: str, start: datetime, tz: str) -> str:
    """Return the key of the window that holds a UTC moment."""
    local = start.astimezone(_zone(tz))
    if unit == "week":
        year, week, _ = local.isocalendar()
        return f"{year:04}-W{week:02}"
    return local.date().isoformat()[: {"day": 10, "month": 7, "year": 4}[unit]]


def _canonical(unit: str, start: datetime, tz: str) -> str:
    """Return the unique key of a window, also for an hour that the clock shows twice."""
    if unit == "hour":
        return f"{start.isoformat()[: 16 if start.minute else 13]}Z"
    return _key(unit, start, tz)


def _parts(unit: str, part: str, key: str, tz: str) -> Iterator[str]:
    """Yield the canonical keys of the smaller windows in a larger one."""
    first = _first_day_of(unit, key)
    after = _day_after(unit, first)
    if part == "hour":
        # Counted in UTC, as a local day has 23, 24 or 25 hours.
        moment, end = _midnight(first, tz), _midnight(after, tz)
        while moment < end:
            yield _canonical("hour", moment, tz)
            moment += _HOUR
        return
    day = first
    while day < after:
        yield day.isoformat()[: 7 if part == "month" else 10]
        day = _day_after(part, day)


def _first_day_of(unit: str, key: str) -> date:
    try:
        return _first_day(unit, key)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"partition {key!r} is not a {unit}: {error}") from error


def _day_after(unit: str, first: date) -> date:
    if unit == "day":
        return first + timedelta(days=1)
    if unit == "week":
        return first + timedelta(days=7)
    if unit == "month":
        return date(first.year + first.month // _MONTHS, first.month % _MONTHS + 1, 1)
    return date(first.year + 1, 1, 1)
