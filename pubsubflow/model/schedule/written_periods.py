"""Partition mappers of keys in any format: periods as `strftime` writes them, and sets of keys.

They are what the mappers of Airflow's partitioned assets do (`airflow.partition_mappers`): those of
`partitions` have keys of one form, and windows by the calendar. A roll-up takes the keys that its
window names; an event of another key is none of it.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

from msgspec import Struct

from pubsubflow.errors import DefinitionError, InvalidInput

PeriodUnit = Literal["hour", "day", "week", "month", "quarter", "year"]
MOST_KEYS = 1000
"""Keys to which one key is mapped at most: `scheduler.partition_mapper_max_downstream_keys`."""

_MONTHS_A_QUARTER = 3
_MONTHS = 12
_WIDTHS = {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2, "V": 2, "U": 2, "W": 2}
_PIECES = re.compile(r"%(?P<directive>.)|\{(?P<name>quarter)\}|(?P<text>.)", flags=re.DOTALL)
_NEEDED = {
    "hour": ({"Y", "m", "d", "H"},),
    "day": ({"Y", "m", "d"},),
    "week": ({"Y", "m", "d"},),
    "month": ({"Y", "m"},),
    "quarter": ({"Y", "quarter"}, {"Y", "m"}),
    "year": ({"Y"},),
}


class Periods(Struct, frozen=True, tag="periods", omit_defaults=True):
    """Maps a moment to the period that holds it.

    Attributes:
        unit: The period.
        written: Format of the runs' keys, of `strftime`, with `{quarter}`.
        read: Format of the events' keys, of `strptime`.
        tz: IANA zone of moments without an offset, and in which days begin.
    """

    unit: PeriodUnit
    written: str
    read: str = "%Y-%m-%dT%H:%M:%S"
    tz: str = "UTC"


class PeriodRollUp(Struct, frozen=True, tag="period_roll_up", omit_defaults=True):
    """Maps moments to the period that holds them, which needs those of a window.

    Attributes:
        by: The period; its beginning must follow from the key.
        window: Which moments: the minutes of an hour, hours of a day, days of a week or month,
            months of a quarter or year.
        backward: Whether the window ends with the period's beginning, rather than begins there.
        at_least: How many of them suffice; a negative number of them may be missing; None for all.
    """

    by: Periods
    window: PeriodUnit
    backward: bool = False
    at_least: int | None = None

    def __post_init__(self) -> None:
        """Raise DefinitionError for keys from which the period's beginning does not follow."""
        _check_readable(self.by)


class KeyRollUp(Struct, frozen=True, tag="key_roll_up", omit_defaults=True):
    """Maps a set of keys to one, which needs all of them; `at_least` as in `PeriodRollUp`."""

    to: str
    keys: tuple[str, ...]
    at_least: int | None = None


class PeriodFanOut(Struct, frozen=True, tag="period_fan_out", omit_defaults=True):
    """Maps a moment to several keys: those of a window at the period that holds it.

    Attributes:
        by, window, backward: See `PeriodRollUp`.
        written: Format of the runs' keys.
        most: A key that maps to more of them maps to none.
    """

    by: Periods
    window: PeriodUnit
    written: str
    backward: bool = False
    most: int = MOST_KEYS

    def __post_init__(self) -> None:
        """Raise DefinitionError for keys from which the period's beginning does not follow."""
        _check_readable(self.by)


class Scatter(Struct, frozen=True, tag="scatter"):
    """Maps every key to each key of a set."""

    keys: tuple[str, ...]


WrittenMapper = Periods | PeriodRollUp | KeyRollUp | PeriodFanOut | Scatter


def map_written(mapper: WrittenMapper, key: str) -> tuple[tuple[str, str], ...]:
    """Return the runs' keys to which an event's key maps, each with the event's own.

    Raises:
        InvalidInput: The key does not have the form that the mapper takes.
    """
    match mapper:
        case Periods():
            return ((_write(mapper.written, _begin(mapper, key)), key),)
        case PeriodRollUp():
            begin = _begin(mapper.by, key)
            if key not in _keys(mapper.by, mapper.window, begin, mapper.backward):
                return ()
            return ((_write(mapper.by.written, begin), key),)
        case KeyRollUp():
            return ((mapper.to, key),) if key in mapper.keys else ()
        case PeriodFanOut():
            moments = _moments(mapper.window, _begin(mapper.by, key), mapper.backward)
            found = dict.fromkeys(_write(mapper.written, each) for each in moments)
            if len(found) > mapper.most:
                raise InvalidInput(
                    f"partition {key!r} is one of {len(found)} runs, and {mapper.most} is the most"
                )
            return tuple((to, key) for to in found)
        case Scatter():
            return tuple((to, key) for to in mapper.keys)


def needed_of(mapper: WrittenMapper, key: str) -> int:
    """Return how many different event keys a run's key needs; 1 without a roll-up.

    Raises:
        InvalidInput: The mapper maps no key to it.
    """
    if not isinstance(mapper, PeriodRollUp | KeyRollUp):
        return 1
    least, every = mapper.at_least, len(set(members_of(mapper, key)))
    if least is None:
        return every
    return least if least > 0 else max(0, every + least)


def members_of(mapper: WrittenMapper, key: str) -> Iterator[str]:
    """Yield the event keys that a run's key needs, in order; the key itself without a roll-up.

    Raises:
        InvalidInput: The mapper maps no key to it.
    """
    match mapper:
        case PeriodRollUp():
            begin = _read(mapper.by, key)
            yield from _keys(mapper.by, mapper.window, begin, mapper.backward)
        case KeyRollUp():
            if key != mapper.to:
                raise InvalidInput(f"partition {key!r} is not {mapper.to!r}")
            yield from mapper.keys
        case _:
            yield key


def _check_readable(by: Periods) -> None:
    found = set(_pattern(by.written).groupindex)
    if not any(each <= found for each in _NEEDED[by.unit]):
        raise DefinitionError(
            f"the key format {by.written!r} does not say when a {by.unit} begins: it needs "
            + ", ".join(
                sorted(
                    f"%{each}" if len(each) == 1 else f"{{{each}}}" for each in _NEEDED[by.unit][0]
                )
            )
        )


@lru_cache(maxsize=256)
def _pattern(written: str) -> re.Pattern[str]:
    """Return what reads keys of a format.

    Raises:
        DefinitionError: It has a directive that cannot be read back, or one of them twice.
    """
    parts, seen = [], set()
    for piece in _PIECES.finditer(written):
        name = piece["directive"] or piece["name"]
        if name is None:
            parts.append(re.escape(piece["text"]))
            continue
        if name in seen or not (name in _WIDTHS or piece["name"]):
            known = ", ".join(f"%{each}" for each in _WIDTHS)
            raise DefinitionError(
                f"the key format {written!r} cannot be read back: {piece[0]} is there twice, or is "
                f"none of {known} and {{quarter}}"
            )
        seen.add(name)
        parts.append(f"(?P<{name}>{'[1-4]' if piece['name'] else f'[0-9]{{{_WIDTHS[name]}}}'})")
    return re.compile("".join(parts))


def _begin(by: Periods, key: str) -> datetime:
    """Return when the period of an event's key begins: by the clock of the zone, without it."""
    try:
        moment = datetime.strptime(key, by.read)  # noqa: DTZ007 - a key may have no offset
        zone = ZoneInfo(by.tz)
        local = moment if moment.tzinfo is None else moment.astimezone(zone)
    except ValueError as error:
        raise InvalidInput(f"partition {key!r} is not a moment: {error}") from error
    return _floor(by.unit, local.replace(tzinfo=None))


def _floor(unit: PeriodUnit, moment: datetime) -> datetime:
    moment = moment.replace(minute=0, second=0, microsecond=0)
    if unit == "hour":
        return moment
    moment = moment.replace(hour=0)
    match unit:
        case "week":
            return moment - timedelta(days=moment.weekday())
        case "month":
            return moment.replace(day=1)
        case "quarter":
            return moment.replace(month=moment.month - (moment.month - 1) % 3, day=1)
        case "year":
            return moment.replace(month=1, day=1)
    return moment


def _read(by: Periods, key: str) -> datetime:
    """Return when the period of a run's key begins."""
    found = _pattern(by.written).fullmatch(key)
    if found is None:
        raise InvalidInput(f"partition {key!r} is not a {by.unit}, as {by.written!r} writes it")
    given = {name: int(text) for name, text in found.groupdict().items()}
    month = given.get("m", (given.get("quarter", 1) - 1) * _MONTHS_A_QUARTER + 1)
    try:
        moment = datetime(given["Y"], month, given.get("d", 1))  # noqa: DTZ001 - by the clock
        moment = moment.replace(hour=given.get("H", 0))
    except ValueError as error:
        raise InvalidInput(f"partition {key!r} is not a {by.unit}: {error}") from error
    return _floor(by.unit, moment)


def _write(written: str, moment: datetime) -> str:
    quarter = (moment.month - 1) // _MONTHS_A_QUARTER + 1
    return moment.strftime(written).replace("{quarter}", str(quarter))


def _keys(by: Periods, window: PeriodUnit, begin: datetime, backward: bool) -> Iterator[str]:  # noqa: FBT001 - a field of the mappers
    """Yield the event keys of a window."""
    zone = ZoneInfo(by.tz)
    for moment in _moments(window, begin, backward):
        # By UTC and back: an hour that the clock leaves out is the next one.
        there = moment.replace(tzinfo=zone).astimezone(UTC).astimezone(zone)
        yield there.strftime(by.read)


def _moments(window: PeriodUnit, begin: datetime, backward: bool) -> Iterator[datetime]:  # noqa: FBT001 - a field of the mappers
    """Yield the moments of a window, by the clock; one backward ends with the beginning."""
    if window in ("quarter", "year"):
        count = _MONTHS_A_QUARTER if window == "quarter" else _MONTHS
        first = _month_after(begin, 1 - count) if backward else begin
        yield from (_month_after(first, number) for number in range(count))
        return
    count, step = _steps(window, begin, backward)
    first = begin - (count - 1) * step if backward else begin
    yield from (first + number * step for number in range(count))


def _steps(window: PeriodUnit, begin: datetime, backward: bool) -> tuple[int, timedelta]:  # noqa: FBT001 - a field of the mappers
    if window == "hour":
        return 60, timedelta(minutes=1)
    if window == "day":
        return 24, timedelta(hours=1)
    if window == "week":
        return 7, timedelta(days=1)
    first, last = (_month_after(begin, -1), begin) if backward else (begin, _month_after(begin, 1))
    return (last - first).days, timedelta(days=1)


def _month_after(moment: datetime, months: int) -> datetime:
    number = moment.month - 1 + months
    try:
        return moment.replace(year=moment.year + number // _MONTHS, month=number % _MONTHS + 1)
    except ValueError as error:
        raise InvalidInput(f"a window of months begins with a month, not at {moment}") from error
