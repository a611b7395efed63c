"""Time triggers: a moment, a duration, windows of a cron expression."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from functools import cached_property

from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.model.schedule.timetable import CronSpec
from pubsubflow.model.triggers import Trigger, TriggerContext, TriggerEvent


class Moment(Trigger, frozen=True, kw_only=True):
    """Fires once, at a moment; at once if that has passed.

    Attributes:
        at: The moment, with a time zone.

    The payload is the moment in ISO 8601.
    """

    at: datetime

    def __post_init__(self) -> None:
        """Raise DefinitionError for a moment without a time zone."""
        if self.at.tzinfo is None:
            raise DefinitionError(f"Moment needs a time zone: {self.at.isoformat()} has none")

    def timer(self) -> datetime:
        """Return the moment."""
        return self.at

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Yield one event at the moment."""
        await ctx.sleep_until(self.at)
        yield _at(self.at)


class Delta(Trigger, frozen=True, kw_only=True):
    """Fires once, a duration after the wait began, also across restarts.

    Attributes:
        delta: The duration; not negative.

    The payload is the moment in ISO 8601.
    """

    delta: timedelta

    def __post_init__(self) -> None:
        """Raise DefinitionError for a negative duration."""
        if self.delta < timedelta(0):
            raise DefinitionError(f"Delta: delta must not be negative: {self.delta}")

    def timer(self) -> timedelta:
        """Return the duration."""
        return self.delta

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Yield one event, the duration after the wait's start."""
        moment = ctx.started_at + self.delta
        await ctx.sleep_until(moment)
        yield _at(moment)


class CronWindow(Trigger, frozen=True, kw_only=True, dict=True):
    """Fires at once within a window of time, else when the next one opens.

    A window opens at each tick of a cron expression and stays open for a duration, which is real
    time: two hours last two hours also while the clocks change. Around a clock change ticks follow
    Debian's cron. A watched dataset gets one event a window; those that closed while nothing ran
    are left out.

    Attributes:
        cron: Five fields, for example `0 22 * * *`.
        duration: How long a window stays open; more than 0.
        tz: IANA name of the time zone.

    The payload is `{"opens", "closes"}` in ISO 8601, UTC.
    """

    cron: str
    duration: timedelta
    tz: str = "UTC"

    def __post_init__(self) -> None:
        """Raise DefinitionError for an invalid expression, zone or duration."""
        if self.duration <= timedelta(0):
            raise DefinitionError(f"CronWindow: duration must be above 0, not {self.duration}")
        _ = self._ticks

    @cached_property
    def _ticks(self) -> CronSpec:
        return CronSpec(self.cron, self.tz)

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Yield an event for the window that is open, and each time the next one opens.

        Raises:
            TriggerError: The expression has no further tick.
        """
        reported = None if ctx.position is None else datetime.fromisoformat(ctx.position)
        while True:
            still_open = ctx.now() - self.duration
            opens = self._ticks.after(still_open if reported is None else max(still_open, reported))
            if opens is None:
                raise TriggerError(f"CronWindow: {self.cron!r} has no further tick")
            await ctx.sleep_until(opens)
            reported = opens
            payload = {"opens": opens.isoformat(), "closes": (opens + self.duration).isoformat()}
            yield TriggerEvent(payload=payload, id=payload["opens"], position=payload["opens"])


def _at(moment: datetime) -> TriggerEvent:
    return TriggerEvent(payload=moment.isoformat(), id=moment.isoformat())
