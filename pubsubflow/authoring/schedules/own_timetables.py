"""Timetables of one's own: their ticks are computed where the DAG file is imported."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from pubsubflow.authoring.schedules.expressions import Schedule, SlotCounters
from pubsubflow.authoring.schedules.timetables import TimeSchedule
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.errors import PubsubflowError
from pubsubflow.model.schedule.conditions import Condition, ScheduleSpec, Tick, map_ticks
from pubsubflow.model.schedule.timetable import TableSpec

MOST_TICKS = 5_000
"""Ticks of a period, of which the present and the next are computed."""

MOST_PAST_TICKS = 20_000
"""Ticks since the start of a DAG that catches up."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENT = timedelta(microseconds=1)
_DECEMBER = 12


class TimetableFailed(PubsubflowError):  # noqa: N818 - what user code did
    """A timetable of one's own raised an error."""


class Timetable(TimeSchedule):
    """Start a run at moments of your own; write `next_after` and `__repr__`.

    It composes as `Cron` does. `next_after` is pure: the same moment always gives the same answer.
    It is called where the DAG file is imported, within the time limit of imports, for the present
    and the next year (month, day where ticks are dense), and again when the next one begins.
    """

    __slots__ = ()

    def next_after(self, moment: datetime) -> datetime | None:
        """Return the first tick after a moment, both with a zone; None after the last one.

        Ticks are whole seconds.
        """
        raise NotImplementedError(f"{type(self).__name__} needs `def next_after(self, moment)`")

    def condition(self, slots: SlotCounters) -> Condition:
        """Return `Tick`, still without its ticks."""
        slot = next(slots.ticks)
        slots.own[slot] = self
        return Tick(slot, TableSpec(self._name()))

    def _name(self) -> str:
        name = repr(self)
        if " at 0x" in name:
            raise definition_error(
                f"{type(self).__name__}: write __repr__, which says what it is: by that it is the "
                "same timetable in the next version"
            )
        return name


def own_timetables(written: Schedule | None, ticks: Sequence[Tick]) -> dict[int, Timetable]:
    """Return slot of the tick → timetable, for those of a schedule that are one's own."""
    if written is None or not any(isinstance(each.timetable, TableSpec) for each in ticks):
        return {}
    slots = SlotCounters()
    written.condition(slots)
    return slots.own


def with_ticks(
    schedule: ScheduleSpec,
    own: Mapping[int, Timetable],
    now: datetime,
    *,
    start: datetime | None,
    catchup: bool,
) -> ScheduleSpec:
    """Return a schedule with the ticks of its own timetables.

    Args:
        schedule: The schedule.
        own: Slot of the tick → timetable.
        now: From whose year, month or day on they are computed.
        start: Of the DAG; with catch-up they are computed from there.
        catchup: Whether missed ticks get runs as well.

    Raises:
        DefinitionError: A timetable gives something else than rising moments, or too many.
        TimetableFailed: It raises an error.
    """

    def fill(part: Tick) -> Tick:
        timetable = own.get(part.slot)
        if timetable is None:
            return part
        table = computed_ticks(timetable, now, start=start, catchup=catchup)
        return replace(part, timetable=table)

    return replace(schedule, condition=map_ticks(schedule.condition, fill)) if own else schedule


def computed_ticks(
    timetable: Timetable, now: datetime, *, start: datetime | None, catchup: bool
) -> TableSpec:
    """Return the ticks of a timetable from the beginning of a period to the end of the next one.

    Two imports within one period give the same table, so a DAG gets a new version only when a
    period begins.

    Raises:
        DefinitionError: As `with_ticks`.
        TimetableFailed: As `with_ticks`.
    """
    now = now.astimezone(UTC)
    past: list[int] = []
    for period in (_years, _months, _days):
        begin, following, end = period(now)
        ticks, more = _between(timetable, begin, end, MOST_TICKS)
        if len(ticks) <= MOST_TICKS:
            break
    else:
        raise definition_error(
            f"{timetable!r} has more than {MOST_TICKS} ticks in two days: write Every or Cron"
        )
    if start is not None and catchup and start < begin:
        past, _ = _between(timetable, start, begin, MOST_PAST_TICKS)
        if len(past) > MOST_PAST_TICKS:
            raise definition_error(
                f"{timetable!r} has more than {MOST_PAST_TICKS} ticks since start={start}: "
                "write a later start, or leave catchup out and backfill"
            )
    renew_at = _seconds(following) if more else None
    return TableSpec(repr(timetable), (*past, *ticks), renew_at)


def latest_own_tick(timetable: Timetable, until: datetime, longest: timedelta) -> datetime | None:
    """Return the last tick up to a moment, if there was one within the longest time.

    Raises:
        DefinitionError: As `with_ticks`.
        TimetableFailed: As `with_ticks`.
    """
    period = timedelta(days=1)
    while period < 2 * longest:
        ticks, _ = _between(timetable, until - period, until + _MOMENT, MOST_PAST_TICKS)
        if ticks:
            return _EPOCH + timedelta(seconds=ticks[-1])
        period *= 8
    return None


def _between(
    timetable: Timetable, begin: datetime, end: datetime, most: int
) -> tuple[list[int], bool]:
    """Return the ticks of a time, one more than `most` at most, and whether later ones come."""
    ticks: list[int] = []
    moment = begin - _MOMENT
    while len(ticks) <= most:
        tick = _next(timetable, moment)
        if tick is None or tick >= end:
            return ticks, tick is not None
        ticks.append(_seconds(tick))
        moment = tick
    return ticks, True


def _next(timetable: Timetable, moment: datetime) -> datetime | None:
    try:
        tick: Any = timetable.next_after(moment)
    except Exception as error:
        raise TimetableFailed(
            f"{timetable!r}: next_after({moment.isoformat()}) raised {type(error).__name__}: "
            f"{error}"
        ) from error
    if tick is None:
        return None
    if not isinstance(tick, datetime) or tick.tzinfo is None or tick.microsecond:
        raise definition_error(
            f"{timetable!r}: next_after({moment.isoformat()}) returned {tick!r}: return a datetime "
            "with a zone, of whole seconds, or None"
        )
    if tick <= moment:
        raise definition_error(
            f"{timetable!r}: next_after({moment.isoformat()}) returned {tick.isoformat()}, which "
            "is not later"
        )
    return tick.astimezone(UTC)


def _seconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(seconds=1)


def _years(now: datetime) -> tuple[datetime, datetime, datetime]:
    first = datetime(now.year, 1, 1, tzinfo=UTC)
    return first, first.replace(year=now.year + 1), first.replace(year=now.year + 2)


def _months(now: datetime) -> tuple[datetime, datetime, datetime]:
    first = datetime(now.year, now.month, 1, tzinfo=UTC)
    return first, _next_month(first), _next_month(_next_month(first))


def _next_month(first: datetime) -> datetime:
    if first.month == _DECEMBER:
        return first.replace(year=first.year + 1, month=1)
    return first.replace(month=first.month + 1)


def _days(now: datetime) -> tuple[datetime, datetime, datetime]:
    first = datetime(now.year, now.month, now.day, tzinfo=UTC)
    return first, first + timedelta(days=1), first + timedelta(days=2)
