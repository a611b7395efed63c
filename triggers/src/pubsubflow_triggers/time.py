"""Waiting for a moment."""

from collections.abc import AsyncIterator
from datetime import datetime

from pubsubflow.errors import DefinitionError
from pubsubflow.model.triggers import Trigger, TriggerContext, TriggerEvent


class Moment(Trigger, frozen=True, kw_only=True):
    """Fires once, at a moment; at once if that has passed.

    Attributes:
        at: The moment, with a time zone.
    """

    at: datetime

    def __post_init__(self) -> None:
        """Raise DefinitionError for a moment without a time zone."""
        if self.at.tzinfo is None:
            raise DefinitionError(f"Moment needs a time zone: {self.at.isoformat()} has none")

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Yield one event whose payload is the moment in ISO 8601."""
        await ctx.sleep_until(self.at)
        yield TriggerEvent(payload=self.at.isoformat(), id=self.at.isoformat())
