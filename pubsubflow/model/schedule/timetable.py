"""Timetables: cron expressions and fixed intervals, correct across clock changes."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from msgspec import Struct

from pubsubflow.errors import DefinitionError

SHORTEST_SECONDS = 0.1
LONGEST_SECONDS = 3660 * 86_400.0
_FIELDS = 5


class CronSpec(Struct, frozen=True, tag="cron"):
    """A cron expression of five fields in a time zone.

    Around a clock change it follows Debian's cron, see cronsim.

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
        local = moment.astimezone(ZoneInfo(self.tz))
        try:
            return next(CronSim(self.expression, local)).astimezone(UTC)
        except StopIteration:
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


def next_tick(
    timetable: CronSpec | IntervalSpec,
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
        if isinstance(timetable, CronSpec)
        else timetable.after(moment, start)
    )
    return None if tick is None or (end is not None and tick > end) else tick
