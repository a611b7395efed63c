"""Routes of the live stream: changes as server-sent events, as they are recorded."""

from collections.abc import Iterable
from typing import Annotated

import anyio
import structlog
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.http import routing, sse
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import parse_query
from pubsubflow.api.http.responses import encode
from pubsubflow.api.http.routing import MediaBody, Route
from pubsubflow.api.http.shown import rights_of_request
from pubsubflow.api.stream.change_feed import ChangeFeed, Listener, PositionLost
from pubsubflow.api.stream.place import Places
from pubsubflow.api.stream.settings import StreamSettings
from pubsubflow.errors import DefinitionError, Unavailable
from pubsubflow.model.changes import RESET, ChangeFilter, ChangeKind, StreamReset, change_filter
from pubsubflow.store.read.changes import ReadChanges
from pubsubflow.wakeup import Wakeups

log = structlog.get_logger(__name__)

_PAUSE_SECONDS = 0.5
Values = Annotated[list[str], Meta(max_length=100)]

_MESSAGES = MediaBody(
    (sse.EVENT_STREAM,),
    "Server-sent events: changes, as they are recorded; docs/live.md names kinds and fields.",
)


class StreamQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the live stream; all but `last_event_id` may be repeated.

    Attributes:
        dag: Only changes of these DAGs; every parameter that is given must match.
        run: Only changes of these runs.
        dataset: Only events of these datasets; may be patterns such as `s3://lake/*`.
        kind: Only changes of these kinds.
        last_event_id: Resume after this message, as with the header `Last-Event-ID`.
    """

    dag: Values = []
    run: Values = []
    dataset: Values = []
    kind: Annotated[list[ChangeKind], Meta(max_length=100)] = []
    last_event_id: str | None = None


class StreamRoutes:
    """Handler of the live stream.

    Args:
        changes: The change log.
        wakeups: Notify when changes were recorded, and when the daemon stops.
        settings: Intervals and limits.

    Attributes:
        places: Adds to other responses up to which position of the stream they are true.
    """

    def __init__(self, changes: ReadChanges, wakeups: Wakeups, settings: StreamSettings) -> None:
        self._wakeups = wakeups
        self._settings = settings
        self._feed = ChangeFeed(changes, wakeups, recent_bytes=settings.recent_bytes)
        self.places = Places(changes, self._feed)

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        yield routing.get(
            "/api/v1/stream",
            self.stream,
            query=StreamQuery,
            responses={200: _MESSAGES},
            headers={"Last-Event-ID": "Resume after this message."},
            allow_head=False,
        )

    async def run(self) -> None:
        """Read the change log while there are clients, until cancelled."""
        await self._feed.run()

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Send changes as server-sent events, as they are recorded.

        After `Last-Event-ID` nothing is skipped and nothing is repeated; if what followed it is not
        kept any more, a message `reset` says so, and the stream continues from now.
        """
        changes = _filter(parse_query(request, StreamQuery))
        async with self._feed.listen(changes) as listener:
            reason = await self._resume(listener, sse.last_event_id(request))
            response = web.StreamResponse(headers=sse.HEADERS)
            first = [sse.stream_head(self._settings.retry_seconds, listener.position)]
            if reason is not None:
                first.append(_reset(listener, reason))
            try:
                await response.prepare(request)
                await self._send(request, response, listener, first)
            except ConnectionError as error:
                log.debug("stream.client_disconnected", reason=str(error))
            return response

    async def _resume(self, listener: Listener, last_event_id: str | None) -> str | None:
        """Move a listener to the position it resumes from; return why that is not possible."""
        if last_event_id is None:
            return None
        try:
            listener.position = await self._feed.locate(last_event_id)
        except PositionLost as lost:
            return lost.reason
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
        while not self._wakeups.stopping:
            if parts:
                if not await sse.send(request, response, parts, seconds=settings.stall_seconds):
                    return
                beat_at = anyio.current_time() + settings.heartbeat_seconds
            if not listener.is_behind:
                await listener.wakeup.wait(beat_at - anyio.current_time())
            parts = await self._take(listener)
            # Also sent while only changes of other filters come: its id moves the client's
            # position on, so that it resumes without reading those again.
            if not parts and anyio.current_time() >= beat_at:
                parts = [sse.heartbeat(listener.position)]

    @staticmethod
    async def _take(listener: Listener) -> list[bytes]:
        """Return the next messages of a listener; a reset if its position is lost."""
        try:
            return await listener.take()
        except PositionLost as lost:
            listener.go_to_end()
            return [_reset(listener, lost.reason)]
        except Unavailable as error:
            log.debug("stream.take_postponed", reason=str(error))
            await anyio.sleep(_PAUSE_SECONDS)
            return []


def _reset(listener: Listener, reason: str) -> bytes:
    return sse.message(RESET, encode(StreamReset(reason=reason)), listener.position)


def _filter(params: StreamQuery) -> ChangeFilter:
    """Return the filter of a query string.

    Raises:
        BadRequest: A dataset is malformed.
    """
    try:
        return change_filter(
            dags=params.dag,
            runs=params.run,
            datasets=params.dataset,
            kinds=params.kind,
            rights=rights_of_request(),
        )
    except DefinitionError as error:
        raise BadRequest(str(error), status=400, field="dataset") from error
