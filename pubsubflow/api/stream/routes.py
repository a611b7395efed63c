"""The live stream: what happens, as it happens, as server-sent events."""

from collections.abc import Iterable
from typing import Annotated

import anyio
import structlog
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.http import routing, sse
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import query
from pubsubflow.api.http.responses import encode
from pubsubflow.api.http.routing import Media, Route
from pubsubflow.api.stream.change_feed import Feed, Gone, Listener
from pubsubflow.api.stream.settings import LiveSettings
from pubsubflow.errors import DefinitionError, Unavailable
from pubsubflow.model.changes import RESET, Kind, ResetNews, Selection, selection_of
from pubsubflow.store.read.changes import ReadNews
from pubsubflow.wakeup import Bells

log = structlog.get_logger(__name__)

_PAUSE_SECONDS = 0.5
Values = Annotated[list[str], Meta(max_length=100)]

_MESSAGES = Media(
    (sse.EVENT_STREAM,),
    "Server-sent events: what happens, as it happens; docs/live.md names kinds and fields.",
)


class StreamQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the live stream; all but `last_event_id` may be repeated.

    Attributes:
        dag: Only what is about one of these DAGs; so with the other names, and all have to fit.
        run: Only what is about one of these runs.
        dataset: Only events of these datasets; may be patterns such as `s3://lake/*`.
        kind: Only news of these kinds.
        last_event_id: Go on after this message, as with the header `Last-Event-ID`.
    """

    dag: Values = []
    run: Values = []
    dataset: Values = []
    kind: Annotated[list[Kind], Meta(max_length=100)] = []
    last_event_id: str | None = None


class Live:
    """Handler of the live stream.

    Args:
        news: The log of what happened.
        bells: Rung when the daemon stops.
        settings: See there.
    """

    def __init__(self, news: ReadNews, bells: Bells, settings: LiveSettings) -> None:
        self._bells = bells
        self._settings = settings
        self._feed = Feed(news, bells, recent_bytes=settings.recent_bytes)

    def routes(self) -> Iterable[Route]:
        """Return what is served."""
        yield routing.get(
            "/api/v1/stream",
            self.stream,
            query=StreamQuery,
            answers={200: _MESSAGES},
            headers={"Last-Event-ID": "Go on after this message."},
            allow_head=False,
        )

    async def run(self) -> None:
        """Read what happens while somebody listens."""
        await self._feed.run()

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Send what happens, as it happens, as server-sent events.

        After `Last-Event-ID` nothing is left out and nothing comes twice; if what followed it is
        not kept any more, a message `reset` says so, and the stream goes on from now.
        """
        chosen = _selection(query(request, StreamQuery))
        async with self._feed.listen(chosen) as listener:
            reason = await self._place(listener, sse.asked_place(request))
            response = web.StreamResponse(headers=sse.HEADERS)
            first = [sse.greeting(self._settings.retry_seconds, listener.place)]
            if reason is not None:
                first.append(_reset(listener, reason))
            try:
                await response.prepare(request)
                await self._send(request, response, listener, first)
            except ConnectionError as error:
                log.debug("api.listener_left", reason=str(error))
            return response

    async def _place(self, listener: Listener, asked: str | None) -> str | None:
        """Put a listener where it asks to be; return why it cannot be there."""
        if asked is None:
            return None
        try:
            listener.place = await self._feed.find(asked)
        except Gone as gone:
            return gone.reason
        return None

    async def _send(
        self,
        request: web.Request,
        response: web.StreamResponse,
        listener: Listener,
        parts: list[bytes],
    ) -> None:
        """Send until the daemon stops or the client is too slow."""
        settings = self._settings
        beat_at = anyio.current_time() + settings.heartbeat_seconds
        while not self._bells.stopping:
            if parts:
                if not await sse.send(request, response, parts, seconds=settings.stall_seconds):
                    return
                beat_at = anyio.current_time() + settings.heartbeat_seconds
            if not listener.behind:
                await listener.bell.wait(beat_at - anyio.current_time())
            parts = await self._take(listener)
            if not parts and anyio.current_time() >= beat_at:
                parts = [sse.heartbeat(listener.place)]

    @staticmethod
    async def _take(listener: Listener) -> list[bytes]:
        """Return what a listener is to get now."""
        try:
            return await listener.take()
        except Gone as gone:
            listener.go_to_end()
            return [_reset(listener, gone.reason)]
        except Unavailable as error:
            log.debug("api.live_waits", reason=str(error))
            await anyio.sleep(_PAUSE_SECONDS)
            return []


def _reset(listener: Listener, reason: str) -> bytes:
    return sse.message(RESET, encode(ResetNews(reason=reason)), listener.place)


def _selection(asked: StreamQuery) -> Selection:
    """Return what is wanted.

    Raises:
        BadRequest: A dataset is malformed.
    """
    try:
        return selection_of(
            dags=asked.dag, runs=asked.run, datasets=asked.dataset, kinds=asked.kind
        )
    except DefinitionError as error:
        raise BadRequest(str(error), status=400, field="dataset") from error
