"""Receiver of deliveries: verifies by `standardwebhooks`, parses by CloudEvents' own SDK."""

from collections import defaultdict
from contextlib import asynccontextmanager

import anyio
from aiohttp import web
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from msgspec import Struct
from standardwebhooks import Webhook

from support.servers import http_server
from support.signals import Signal

URI = "s3://lake/orders"
QUICK = (0.01,) * 6
HANG, HOLD, DISCONNECT, BARRIER = "hang", "hold", "disconnect", "barrier"
BARRIER_REQUESTS = 4


class Received(Struct):
    """A request that came, and whether it was answered as accepted."""

    webhook_id: str
    kind: str
    event: object
    accepted: bool

    @property
    def name(self):
        return self.event.get_data().get("name")


class Receiver:
    """Receivers at one URL, one a path.

    Attributes:
        responses: Of each receiver, what it does with its next requests. A status, perhaps with
            headers; `HANG`; `DISCONNECT`; `BARRIER`, to answer once four requests were there at
            once; `HOLD`, to answer when `released` is set. 200 after the last one.
        received: The requests of each receiver.
        active: How many requests each is handling.
        peak: How many each was handling at most.
        secrets: With which each verifies.
    """

    def __init__(self):
        self.url = ""
        self.secrets = {}
        self.received = defaultdict(list)
        self.responses = defaultdict(lambda: iter(()))
        self.active = defaultdict(int)
        self.peak = defaultdict(int)
        self.released = anyio.Event()
        self._signal = Signal()

    @asynccontextmanager
    async def serving(self):
        async with http_server("/{name}", self._handle) as self.url:
            yield self

    async def _handle(self, request):
        name = request.match_info["name"]
        body = await request.read()
        headers = {key.lower(): value for key, value in request.headers.items()}
        if name in self.secrets:
            Webhook(self.secrets[name]).verify(body, headers)
        event = from_http_event(HTTPMessage(headers, body))
        self.active[name] += 1
        self.peak[name] = max(self.peak[name], self.active[name])
        response = next(self.responses[name], 200)
        status, more = response if isinstance(response, tuple) else (response, {})
        accepted = status in (HOLD, BARRIER) or (isinstance(status, int) and status < 300)
        self.received[name].append(
            Received(headers["webhook-id"], request.content_type, event, accepted)
        )
        self._signal.notify()
        try:
            return await self._respond(request, name, status, more)
        finally:
            self.active[name] -= 1
            self._signal.notify()

    async def _respond(self, request, name, status, headers):
        match status:
            case "hang":
                await anyio.sleep_forever()
            case "disconnect":
                request.transport.close()
                return web.Response()
            case "barrier":
                await self.until(lambda: self.peak[name] >= BARRIER_REQUESTS)
                status = 200
            case "hold":
                await self.released.wait()
                status = 200
        return web.Response(status=status, headers=headers, text="scripted")

    def names(self, name):
        """Return the accepted events of a receiver, each once, in the order of the first time."""
        return list(dict.fromkeys(each.name for each in self.received[name] if each.accepted))

    async def until(self, condition):
        await self._signal.wait_until(condition)
