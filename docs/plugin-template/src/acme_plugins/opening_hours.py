"""A timetable: the days on which Acme's shops are open."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from pubsubflow import Timetable


class OpeningDays(Timetable):
    """Every opening of a shop: Monday to Saturday, except on holidays.

    Args:
        holidays: Such as `12-25`.
        hour: When it opens.
        tz: Its time zone.
    """

    def __init__(self, *holidays: str, hour: int = 9, tz: str = "Europe/Warsaw") -> None:
        self.holidays, self.hour, self.tz = holidays, hour, tz

    def __repr__(self) -> str:
        return f"OpeningDays{(*self.holidays, self.hour, self.tz)}"

    def next_after(self, moment: datetime) -> datetime | None:
        day = moment.astimezone(ZoneInfo(self.tz))
        opening = day.replace(hour=self.hour, minute=0, second=0, microsecond=0)
        while opening <= moment or opening.weekday() == 6 or f"{opening:%m-%d}" in self.holidays:
            opening += timedelta(days=1)
        return opening
