"""Triggers for tests of tasks that wait; the folder is laid out as an installation."""

from datetime import datetime, timedelta
from typing import Any

from pubsubflow import Trigger, TriggerEvent


class Answer(Trigger, frozen=True, kw_only=True):
    """Fires after so many seconds."""

    payload: Any = None
    seconds: float = 0.0
    at: datetime | None = None

    async def run(self, ctx):
        await ctx.sleep(self.seconds)
        yield TriggerEvent(self.payload, id="the-answer")


class Broken(Trigger, frozen=True, kw_only=True):
    """Raises."""

    text: str

    async def run(self, ctx):
        ctx.log("broken.raises")
        raise OSError(self.text)
        yield


class Silent(Trigger, frozen=True, kw_only=True):
    """Ends without an event."""

    async def run(self, ctx):
        ctx.log("silent.ends")
        return
        yield


class Never(Trigger, frozen=True, kw_only=True):
    """Never fires."""

    async def run(self, ctx):
        while True:
            await ctx.sleep(60)
        yield


class Pause(Trigger, frozen=True, kw_only=True):
    """A timer."""

    length: timedelta

    def timer(self):
        return self.length
