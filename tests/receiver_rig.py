"""Who receives: verifies with `standardwebhooks`, reads with the SDK of CloudEvents, has moods."""

from collections import defaultdict

import anyio
from aiohttp import web
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from msgspec import Struct
from standardwebhooks import Webhook

PATIENCE_SECONDS = 30
URI = "s3://lake/orders"
QUICK = (0.01,) * 6
HANG, HOLD, LEAVE, MEET = "hang", "hold", "leave", "meet"


class Got(Struct):
    """What a receiver got."""

    webhook_id: str
    kind: str
    event: object
    taken: bool

    @property
    def name(self):
        return self.event.get_data().get("name")


class Receiver:
    """Several receivers, told apart by the path; `moods` say what each does with what comes next.

    A mood is a status, with headers perhaps; `hang`; `leave` for a broken connection; `meet` to
    answer when four requests are there at once; `hold` to answer when it is released.
    """

    def __init__(self):
        self.url = ""
        self.secrets = {}
        self.got = defaultdict(list)
        self.moods = defaultdict(lambda: iter(()))
        self.now = defaultdict(int)
        self.most = defaultdict(int)
        self.released = anyio.Event()
        self._change = anyio.Event()

    async def serve(self, *, task_status):
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/{name}", self._take)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handle_signals=False)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
            task_status.started()
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await runner.cleanup()

    async def _take(self, request):
        name = request.match_info["name"]
        body = await request.read()
        headers = {key.lower(): value for key, value in request.headers.items()}
        if name in self.secrets:
            Webhook(self.secrets[name]).verify(body, headers)
        event = from_http_event(HTTPMessage(headers, body))
        self.now[name] += 1
        self.most[name] = max(self.most[name], self.now[name])
        mood = next(self.moods[name], 200)
        status, more = mood if isinstance(mood, tuple) else (mood, {})
        taken = status in (HOLD, MEET) or (isinstance(status, int) and status < 300)
        self.got[name].append(Got(headers["webhook-id"], request.content_type, event, taken))
        self._ring()
        try:
            if status == HANG:
                await anyio.sleep_forever()
            if status == LEAVE:
                request.transport.close()
                return web.Response()
            while status == MEET and self.most[name] < 4:
                await self._change.wait()
            if status == HOLD:
                await self.released.wait()
            status = 200 if status in (HOLD, MEET) else status
            return web.Response(status=status, headers=more, text="as it was told")
        finally:
            self.now[name] -= 1
            self._ring()

    def _ring(self):
        self._change.set()
        self._change = anyio.Event()

    def names(self, name):
        """Return the events that a receiver took, each once, in the order in which it first did."""
        return list(dict.fromkeys(got.name for got in self.got[name] if got.taken))

    async def until(self, condition):
        with anyio.fail_after(PATIENCE_SECONDS):
            while not condition():
                await self._change.wait()
