"""Timetables: cron expressions, fixed intervals and tables of ticks; clock changes count."""

from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from msgspec import Struct

from pubsubflow.errors import DefinitionError

SHORTEST_SECONDS = 0.1
LONGEST_SECONDS = 3660 * 86_400.0
_FIELDS = 5
_MOMENT = timedelta(microseconds=1)
_MINUTE = timedelta(minutes=1)
_DAY = timedelta(days=1)
_STRETCH = timedelta(days=366)
_SECOND = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class CronSpec(Struct, frozen=True, tag="cron"):
    """A cron expression of five fields in a time zone.

    Around a clock change it follows Debian's cron: where neither minute nor hour begins with `*`,
    each time of day comes once, the first time in an hour that the clock repeats, and right after
    one that it leaves out. Otherwise each minute counts at which the clock shows such a time.

    Attributes:
        expression: For example `0 16 * * *`.
        tz: IANA name of the time zone.
    """

    expression: str
    tz: str = "UTC"

    def __post_init__(self) -> None:
        """Raise DefinitionError for a bad expression or an unknown zone."""
        try:
            zone = ZoneInfo(self.tz)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise DefinitionError(
                f"unknown time zone {self.tz!r}; use an IANA name such as 'Europe/Warsaw'"
            ) from error
        if not isinstance(self.expression, str) or len(self.expression.split()) != _FIELDS:
            raise DefinitionError(
                f"bad cron expression {self.expression!r}: it needs five fields, as in '0 16 * * *'"
            )
        try:
            CronSim(self.expression, datetime(2026, 1, 1, tzinfo=zone))
        except CronSimError as error:
            raise DefinitionError(f"bad cron expression {self.expression!r}: {error}") from error

    def after(self, moment: datetime) -> datetime | None:
        """Return the first tick after `moment`, in UTC; None after the last one."""
        zone = ZoneInfo(self.tz)
        minute, hour, *_ = self.expression.split()
        once = not (minute.startswith("*") or hour.startswith("*"))
        return (self._once_after if once else self._each_after)(moment, zone)

    def ticks_of_stretch(self, tick: datetime, until: datetime) -> Iterator[datetime]:
        """Yield the ticks after a tick and before `until`, up to a clock change, if none is near.

        They are those that `after` gives one by one, at a tenth of its cost. Near a change, which
        has rules of its own, there are none here.
        """
        zone = ZoneInfo(self.tz)
        before = tick - _DAY
        if _next_change(before, tick, zone) is not None:
            return
        change = _next_change(tick, min(until, tick + _STRETCH), zone)
        end = min(until, tick + _STRETCH) if change is None else change
        offset = tick.astimezone(zone).utcoffset() or timedelta(0)
        for shown in CronSim(self.expression, (tick + offset).replace(tzinfo=None)):
            following = shown.replace(tzinfo=UTC) - offset
            if following >= end:
                return
            yield following

    def _once_after(self, moment: datetime, zone: ZoneInfo) -> datetime | None:
        """Return the next of the moments at which a time of day is shown for the first time."""
        # The clock may show a time once more: those it has shown before are not to come.
        for shown in CronSim(self.expression, moment.astimezone(zone).replace(tzinfo=None)):
            while not _exists(shown, zone):
                shown += _MINUTE  # noqa: PLW2901 - the first minute after the gap
            tick = shown.replace(tzinfo=zone).astimezone(UTC)
            if tick > moment:
                return tick
        return None

    def _each_after(self, moment: datetime, zone: ZoneInfo) -> datetime | None:
        """Return the next moment at which the clock shows a time that matches."""
        while True:
            # The offset of what comes: the moment before a change is on the clock after it.
            offset = (moment + _MOMENT).astimezone(zone).utcoffset() or timedelta(0)
            shown = (moment.astimezone(UTC) + offset).replace(tzinfo=None)
            try:
                ahead = next(CronSim(self.expression, shown)) - shown
            except StopIteration:
                return None
            change = _next_change(moment, moment + ahead, zone)
            if change is None:
                return (moment + ahead).astimezone(UTC)
            # From there on the clock shows other times; the moment of the change may be a tick.
            moment = change - _MOMENT


def _exists(shown: datetime, zone: ZoneInfo) -> bool:
    local = shown.replace(tzinfo=zone)
    return local.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == shown


def _next_change(since: datetime, until: datetime, zone: ZoneInfo) -> datetime | None:
    """Return the first moment after `since`, up to `until`, at which the zone's offset changes."""
    before, offset = since + _MOMENT, (since + _MOMENT).astimezone(zone).utcoffset()
    while before < until:
        after = min(before + _DAY, until)
        if after.astimezone(zone).utcoffset() == offset:
            before = after
            continue
        while after - before > _MOMENT:
            middle = before + (after - before) // 2
            if middle.astimezone(zone).utcoffset() == offset:
                before = middle
            else:
                after = middle
        return after
    return None


class IntervalSpec(Struct, frozen=True, tag="every"):
    """A fixed interval; ticks are whole multiples of it since 1970-01-01 UTC, or since `start`."""

    seconds: float

    def __post_init__(self) -> None:
        """Raise DefinitionError unless the interval is from 0.1 s to ten years."""
        if not SHORTEST_SECONDS <= self.seconds <= LONGEST_SECONDS:
            raise DefinitionError(
                f"Every needs at least {SHORTEST_SECONDS} s and at most 3660 days, "
                f"not {self.seconds} s"
            )

    def after(self, moment: datetime, start: datetime | None = None) -> datetime:
        """Return the first tick after `moment`."""
        origin = start or datetime(1970, 1, 1, tzinfo=UTC)
        if moment < origin:
            return origin
        step = timedelta(seconds=self.seconds)
        return origin + ((moment - origin) // step + 1) * step


class OnceSpec(Struct, frozen=True, tag="once"):
    """One tick: at `start`, or when the schedule comes into force; see `first_tick`."""

    def after(self, moment: datetime, start: datetime | None = None) -> datetime | None:
        """Return `start` if it is still to come."""
        return start if start is not None and moment < start else None


class TableSpec(Struct, frozen=True, tag="table", omit_defaults=True):
    """The ticks of a timetable of one's own, computed where its DAG file was imported.

    Attributes:
        name: What it is, for people; the same name is the same timetable with further ticks.
        ticks: Seconds since 1970, rising.
        renew_at: When they are to be computed again, as later ones come; None after the last one.
    """

    name: str
    ticks: tuple[int, ...] = ()
    renew_at: int | None = None

    def after(self, moment: datetime) -> datetime | None:
        """Return the first tick after `moment`; None after the last one that is known."""
        # Ticks are whole seconds: those above the floor are those above the moment.
        place = bisect_right(self.ticks, (moment - _EPOCH) // _SECOND)
        return None if place == len(self.ticks) else _EPOCH + self.ticks[place] * _SECOND


Timetable = CronSpec | IntervalSpec | OnceSpec | TableSpec


def first_tick(
    timetable: Timetable, moment: datetime, start: datetime | None, end: datetime | None
) -> datetime | None:
    """Return the first tick of a schedule that comes into force just after `moment`."""
    if isinstance(timetable, OnceSpec):
        tick = moment + _MOMENT if start is None else max(start, moment + _MOMENT)
        return None if end is not None and tick > end else tick
    return next_tick(timetable, moment, start, end)


def next_tick(
    timetable: Timetable,
    moment: datetime,
    start: datetime | None,
    end: datetime | None,
) -> datetime | None:
    """Return the first tick after `moment` that is not before `start` nor after `end`, if any."""
    if start is not None and moment < start:
        # after() excludes its argument, and `start` itself may be a tick.
        moment = start - timedelta(microseconds=1)
    tick = (
        timetable.after(moment)
        if isinstance(timetable, CronSpec | TableSpec)
        else timetable.after(moment, start)
    )
    return None if tick is None or (end is not None and tick > end) else tick


def latest_tick(
    timetable: Timetable,
    after: datetime,
    until: datetime,
    start: datetime | None,
    end: datetime | None,
) -> datetime | None:
    """Return the last tick after one moment and up to another, if there is any.

    It is searched backwards: from tick to tick a year of seconds would take minutes.
    """
    window = _MINUTE
    while True:
        since = max(after, until - window)
        tick = next_tick(timetable, since, start, end)
        if tick is not None and tick <= until:
            break
        if since == after:
            return None
        window *= 2
    if isinstance(timetable, IntervalSpec):
        step = timedelta(seconds=timetable.seconds)
        last = until if end is None else min(until, end)
        return tick + (last - tick) // step * step
    while (following := next_tick(timetable, tick, start, end)) and following <= until:
        tick = following
    return tick


def ticks_between(
    timetable: Timetable,
    since: datetime,
    until: datetime,
    start: datetime | None = None,
    end: datetime | None = None,
) -> Iterator[datetime]:
    """Yield the ticks in [since, until) that are not before `start` nor after `end`, in order."""
    last = until if end is None else min(until, end + _MOMENT)
    tick = next_tick(timetable, since - _MOMENT, start, end)
    while tick is not None and tick < last:
        yield tick
        if isinstance(timetable, CronSpec):
            for following in timetable.ticks_of_stretch(tick, last):
                tick = following
                yield tick
        tick = next_tick(timetable, tick, start, end)
