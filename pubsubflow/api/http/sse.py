"""The format of server-sent events.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from collections.abc import Iterator, Mapping, Sequence

import anyio
import structlog
from aiohttp import hdrs, web

log = structlog.get_logger(__name__)

_PIECE_BYTES = 32 * 1024
EVENT_STREAM = "text/event-stream"
HEADERS: Mapping[str, str] = {
    "Content-Type": EVENT_STREAM,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Accel-Buffering": "no",  # nginx holds nothing back then
}


def message(event: str, data: bytes, place: object) -> bytes:
    """Return a message; `data` is one line of JSON."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (str(place).encode(), event.encode(), data)


def greeting(retry_seconds: float, place: object) -> bytes:
    """Return what a stream begins with: when to come back, and from where to go on then."""
    return b"retry: %d\n%b" % (int(retry_seconds * 1000), heartbeat(place))


def heartbeat(place: object) -> bytes:
    """Return a comment, and a place from which to resume; browsers make no event of it."""
    return b": heartbeat\nid: %b\n\n" % str(place).encode()


def asked_place(request: web.Request) -> str | None:
    """Return the id after which a client wants to go on; a reconnecting one says it by header."""
    return request.headers.get("Last-Event-ID") or request.query.get("last_event_id") or None


def wants_events(request: web.Request) -> bool:
    """Whether a client asks for server-sent events rather than for what else there is."""
    accepted = request.headers.get(hdrs.ACCEPT, "")
    return any(part.split(";")[0].strip().lower() == EVENT_STREAM for part in accepted.split(","))


async def send(
    request: web.Request, response: web.StreamResponse, parts: Sequence[bytes], *, seconds: float
) -> bool:
    """Send parts; a client that does not take them in time is cut off.

    Returns:
        False if it was.
    """
    for piece in _pieces(parts):
        with anyio.move_on_after(seconds) as scope:
            await response.write(piece)
        if scope.cancelled_caught:
            log.info("api.slow_reader_cut_off", path=request.path, seconds=seconds)
            if request.transport is not None:
                request.transport.abort()
            return False
    return True


def _pieces(parts: Sequence[bytes]) -> Iterator[bytes]:
    """Join parts to pieces of a size that a connection may hold back."""
    some: list[bytes] = []
    size = 0
    for part in parts:
        some.append(part)
        size += len(part)
        if size >= _PIECE_BYTES:
            yield b"".join(some)
            some, size = [], 0
    if some:
        yield b"".join(some)
