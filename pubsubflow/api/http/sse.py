"""Server-sent events: their format, and sending them to clients that may be slow.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from collections.abc import Iterator, Mapping, Sequence

import anyio
import structlog
from aiohttp import hdrs, web

log = structlog.get_logger(__name__)

_WRITE_BYTES = 32 * 1024
EVENT_STREAM = "text/event-stream"
HEADERS: Mapping[str, str] = {
    "Content-Type": EVENT_STREAM,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Accel-Buffering": "no",  # nginx would otherwise buffer the stream
}


def message(event: str, data: bytes, position: object) -> bytes:
    """Return a message; `data` is one line of JSON, `position` its id."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (str(position).encode(), event.encode(), data)


def stream_head(retry_seconds: float, position: object) -> bytes:
    """Return the beginning of a stream: the pause before a reconnection, and where it resumes."""
    return b"retry: %d\n%b" % (int(retry_seconds * 1000), heartbeat(position))


def heartbeat(position: object) -> bytes:
    """Return a comment and the position to resume from; browsers dispatch no event for it."""
    return b": heartbeat\nid: %b\n\n" % str(position).encode()


def last_event_id(request: web.Request) -> str | None:
    """Return the id after which a client resumes: from the header, or from the query string."""
    return request.headers.get("Last-Event-ID") or request.query.get("last_event_id") or None


def accepts_event_stream(request: web.Request) -> bool:
    """Whether a client accepts server-sent events."""
    accepted = request.headers.get(hdrs.ACCEPT, "")
    return any(part.split(";")[0].strip().lower() == EVENT_STREAM for part in accepted.split(","))


async def send(
    request: web.Request, response: web.StreamResponse, parts: Sequence[bytes], *, seconds: float
) -> bool:
    """Send parts of a stream; abort the connection if the client does not read them in time.

    Returns:
        Whether everything was sent.
    """
    for chunk in _chunks(parts):
        with anyio.move_on_after(seconds) as scope:
            await response.write(chunk)
        if scope.cancelled_caught:
            log.info("api.slow_reader_aborted", path=request.path, seconds=seconds)
            if request.transport is not None:
                request.transport.abort()
            return False
    return True


def _chunks(parts: Sequence[bytes]) -> Iterator[bytes]:
    """Join parts to chunks of about 32 KiB."""
    # Each chunk gets the time limit anew: with one write for all, a slow client that does read
    # could not be told from one that does not.
    joined: list[bytes] = []
    size = 0
    for part in parts:
        joined.append(part)
        size += len(part)
        if size >= _WRITE_BYTES:
            yield b"".join(joined)
            joined, size = [], 0
    if joined:
        yield b"".join(joined)
