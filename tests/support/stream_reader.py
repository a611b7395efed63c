"""Reader of the live stream, as a client reads it."""

from contextlib import asynccontextmanager

import aiohttp
import anyio

from pubsubflow.client.stream import EventStreamParser
from support.signals import TIMEOUT_SECONDS


class Reader:
    """One connection to a stream: takes messages one by one, and reads no further."""

    def __init__(self, response, last_id):
        self.response = response
        self._parser = EventStreamParser(last_id)
        self._ready = []
        self.seen = []

    @property
    def last_id(self):
        """The id of the last message taken, or of the stream's beginning."""
        return self.seen[-1].id if self.seen else self._parser.last_id

    async def begin(self):
        """Wait for the greeting: from here on nothing is missed."""
        with anyio.fail_after(TIMEOUT_SECONDS):
            while self._parser.last_id is None:
                self._ready += self._parser.feed(await self.response.content.readany())
        return self

    async def take(self, count=1):
        """Return the next messages."""
        with anyio.fail_after(TIMEOUT_SECONDS):
            while len(self._ready) < count:
                data = await self.response.content.readany()
                if not data:
                    raise EOFError(f"the stream ended after {len(self._ready)} of {count}")
                self._ready += self._parser.feed(data)
        taken, self._ready = self._ready[:count], self._ready[count:]
        self.seen += taken
        return taken

    async def rest(self):
        """Return what comes until the stream ends."""
        with anyio.fail_after(TIMEOUT_SECONDS):
            while data := await self.response.content.readany():
                self._ready += self._parser.feed(data)
        self.seen += self._ready
        return self._ready


@asynccontextmanager
async def listening(url, *query, last_id=None):
    """Read the stream of a query for the length of a block."""
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(None)) as session,
        session.get(f"{url}/api/v1/stream", params=list(query), headers=headers) as response,
    ):
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        yield await Reader(response, last_id).begin()


def facts(messages):
    """Return messages without ids and times: kind, name and state."""
    found = []
    for message in messages:
        change = message.change()
        name = next(
            getattr(change, field)
            for field in ("dataset", "task_id", "dag_id", "file", "reason")
            if getattr(change, field, None)
        )
        what = getattr(change, "state", None) or getattr(change, "change", None)
        found.append((message.event, name, what and str(what)))
    return found
