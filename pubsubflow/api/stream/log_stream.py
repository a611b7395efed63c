"""The log stream sends a task's output as server-sent events: `line` for each line, then `end`."""

import re
from collections.abc import AsyncIterator, Callable, Sequence

import anyio
from aiohttp import web
from msgspec import Struct

from pubsubflow.api.http import sse
from pubsubflow.store.objects.output import LogChunk, OutputPosition

_ID = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})\.(\d{1,9})", re.ASCII)
_RETRY_SECONDS = 1.0
_HEARTBEAT_SECONDS = 15.0
_STALL_SECONDS = 20.0

Lines = Callable[[LogChunk], Sequence[bytes]]


class LineId(Struct, frozen=True):
    """The id of a line: the position of its chunk, and the number of the line in it, from 1."""

    chunk: OutputPosition
    line: int

    def __str__(self) -> str:
        """Return it as the `id` of a message."""
        return f"{self.chunk.attempt}.{self.chunk.delivery}.{self.chunk.sequence}.{self.line}"

    @classmethod
    def parse(cls, text: str) -> "LineId | None":
        """Return the id that a text stands for; None if it is not one."""
        found = _ID.fullmatch(text)
        if found is None:
            return None
        attempt, delivery, sequence, line = map(int, found.groups())
        return cls(OutputPosition(attempt, delivery, sequence), line)

    @property
    def before(self) -> OutputPosition:
        """The position after which its chunk comes."""
        return OutputPosition(self.chunk.attempt, self.chunk.delivery, self.chunk.sequence - 1)


async def send_events(
    request: web.Request,
    response: web.StreamResponse,
    batches: AsyncIterator[Sequence[LogChunk]],
    lines_of: Lines,
    *,
    after: LineId | None,
) -> None:
    """Send lines as they come, then `end`.

    Args:
        request: The request.
        response: Its response, already begun.
        batches: Chunks of output; an empty batch now and then while there is none.
        lines_of: Encodes the lines of a chunk as JSON.
        after: The line after which to resume.

    Raises:
        ConnectionError: The client has disconnected.
        PubsubflowError: The output cannot be read any more.
    """
    last: LineId | str = after or ""
    parts = [sse.stream_head(_RETRY_SECONDS, last)]
    beat_at = anyio.current_time()
    async for batch in batches:
        for chunk in batch:
            # The chunk of the line that a client resumes after is read again, for its other lines.
            seen = after.line if after is not None and after.chunk == chunk.position else 0
            for number, line in enumerate(lines_of(chunk)[seen:], start=seen + 1):
                last = LineId(chunk.position, number)
                parts.append(sse.message("line", line, last))
        if not parts and anyio.current_time() >= beat_at:
            parts = [sse.heartbeat(last)]
        if parts:
            if not await sse.send(request, response, parts, seconds=_STALL_SECONDS):
                return
            parts, beat_at = [], anyio.current_time() + _HEARTBEAT_SECONDS
    await response.write(sse.message("end", b"{}", last))
