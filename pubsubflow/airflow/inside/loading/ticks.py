"""Ticks of timetables that only Airflow can compute, for some time ahead.

A period is the calendar year, the month or the day of a moment, and the next one: the shortest that
has few enough ticks. So two imports within one period find the same, and a DAG gets a new version
only when a period begins.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pendulum
from airflow.timetables.base import TimeRestriction
from croniter import CroniterBadDateError

from pubsubflow.airflow.inside.loading.core_timetables import core_timetable

MOST_TICKS = 5_000
"""Ticks of a period."""

MOST_PAST_TICKS = 20_000
"""Ticks since the start of a DAG that catches up, or from which those of later times follow."""

_SECOND = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DECEMBER = 12


class TimetableRefusedError(ValueError):
    """A timetable whose ticks cannot be known ahead; the message says why."""


def ticks_of(table: Any, *, start: datetime | None, catchup: bool, now: datetime) -> dict[str, Any]:
    """Return the ticks of a timetable: its name, seconds since 1970, and until when.

    Args:
        table: The timetable, of the SDK's or of core's.
        start: Of the DAG; ticks of a delta are counted from it.
        catchup: Whether missed ticks get runs as well.
        now: From whose period on they are computed.

    Raises:
        TimetableRefusedError: It has too many of them.
    """
    core = core_timetable(table)
    for begin, following, end in _periods(now.astimezone(UTC)):
        first = _anchor(core, start, begin)
        if catchup and start is not None:
            first = min(first, start)
        ticks, more = _ticks_between(core, first, begin, end, catchup=catchup)
        if ticks is not None:
            name = f"{type(core).__module__}.{type(core).__qualname__} ({core.summary})"
            renew = (following - _EPOCH) // _SECOND if more else None
            return {"name": name, "ticks": ticks, "renew_at": renew}
    raise TimetableRefusedError(f"it has more than {MOST_TICKS} ticks in two days")


def interval_at(
    table: Any, start: datetime | None, tick: datetime
) -> tuple[datetime | None, datetime | None] | None:
    """Return the data interval of the run of a tick; None if the timetable has no such tick."""
    core = core_timetable(table)
    begin = next(iter(_periods(tick)))[0]
    for count, info in enumerate(_walk(core, _anchor(core, start, begin))):
        at = _whole(info.run_after)
        if at == tick:
            interval = info.data_interval
            return (None, None) if interval is None else (interval.start, interval.end)
        if at > tick or count > MOST_PAST_TICKS:
            return None
    return None


def _ticks_between(
    core: Any, first: datetime, begin: datetime, end: datetime, *, catchup: bool
) -> tuple[list[int] | None, bool]:
    """Return the ticks of a time, None if there are too many, and whether later ones come."""
    ticks: list[int] = []
    inside = 0
    for count, info in enumerate(_walk(core, first)):
        tick = _whole(info.run_after)
        if tick >= end:
            return ticks, True
        if count > MOST_PAST_TICKS:
            raise TimetableRefusedError(
                f"it has more than {MOST_PAST_TICKS} ticks since {first.isoformat()}: give the "
                "DAG a later start_date"
            )
        if tick >= begin or catchup:
            second = (tick - _EPOCH) // _SECOND
            if not ticks or ticks[-1] < second:
                ticks.append(second)
        inside += tick >= begin
        if inside > MOST_TICKS:
            return None, True
    return ticks, False


def _walk(core: Any, first: datetime) -> Iterator[Any]:
    """Yield what a timetable says of one run after the other, as Airflow's scheduler does."""
    restriction = TimeRestriction(pendulum.instance(first), None, True)  # noqa: FBT003 - its order
    last = None
    while True:
        try:
            info = core.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)
        except CroniterBadDateError:  # a cron of a date that never comes, or of years that are over
            return
        if info is None:
            return
        if last is not None and info.data_interval == last:
            raise TimetableRefusedError(f"it gives the interval {last} twice")
        yield info
        last = info.data_interval


def _anchor(core: Any, start: datetime | None, begin: datetime) -> datetime:
    """Return where a timetable begins: a delta counts from the start of its DAG."""
    if start is None:
        return begin
    return start if "Delta" in type(core).__name__ else max(start, begin)


def _whole(moment: datetime) -> datetime:
    """Return a moment in whole seconds, not before it."""
    plain = datetime.fromtimestamp(moment.timestamp(), UTC)
    return plain if not plain.microsecond else plain.replace(microsecond=0) + _SECOND


def _periods(now: datetime) -> Iterator[tuple[datetime, datetime, datetime]]:
    year = datetime(now.year, 1, 1, tzinfo=UTC)
    yield year, year.replace(year=now.year + 1), year.replace(year=now.year + 2)
    month = datetime(now.year, now.month, 1, tzinfo=UTC)
    yield month, _next_month(month), _next_month(_next_month(month))
    day = datetime(now.year, now.month, now.day, tzinfo=UTC)
    yield day, day + timedelta(days=1), day + timedelta(days=2)


def _next_month(first: datetime) -> datetime:
    if first.month == _DECEMBER:
        return first.replace(year=first.year + 1, month=1)
    return first.replace(month=first.month + 1)
