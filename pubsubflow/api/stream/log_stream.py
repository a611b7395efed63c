"""A task's output as server-sent events: `line` for each line, and `end` when no more will come."""

import re
from collections.abc import AsyncIterator, Callable, Sequence

import anyio
from aiohttp import web
from msgspec import Struct

from pubsubflow.api.http import sse
from pubsubflow.store.read.tasks import LogPiece, Position

_ID = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})\.(\d{1,9})", re.ASCII)
_RETRY_SECONDS = 1.0
_HEARTBEAT_SECONDS = 15.0
_STALL_SECONDS = 20.0

Lines = Callable[[LogPiece], Sequence[bytes]]


class LineId(Struct, frozen=True):
    """The id of a line: its piece, and how many lines of that are past."""

    piece: Position
    lines: int

    def __str__(self) -> str:
        """Return it as the `id` of a message."""
        return f"{self.piece.attempt}.{self.piece.delivery}.{self.piece.sequence}.{self.lines}"

    @classmethod
    def parse(cls, text: str) -> "LineId | None":
        """Return the id that a text stands for; None if it is none."""
        found = _ID.fullmatch(text)
        if found is None:
            return None
        attempt, delivery, sequence, lines = map(int, found.groups())
        return cls(Position(attempt, delivery, sequence), lines)

    @property
    def before(self) -> Position:
        """The place in the output after which its piece comes."""
        return Position(self.piece.attempt, self.piece.delivery, self.piece.sequence - 1)


async def send_events(
    request: web.Request,
    response: web.StreamResponse,
    pieces: AsyncIterator[Sequence[LogPiece]],
    lines_of: Lines,
    *,
    after: LineId | None,
) -> None:
    """Send pieces as they come, then `end`.

    Args:
        request: Who asks.
        response: What they get, already begun.
        pieces: Output; nothing now and then while there is none.
        lines_of: Turns a piece into lines of JSON.
        after: The line to go on after.

    Raises:
        ConnectionError: The client is gone.
        PubsubflowError: The output breaks off.
    """
    place: LineId | str = after or ""
    parts = [sse.greeting(_RETRY_SECONDS, place)]
    beat_at = anyio.current_time()
    async for some in pieces:
        for piece in some:
            past = after.lines if after is not None and after.piece == piece.position else 0
            for number, line in enumerate(lines_of(piece)[past:], start=past + 1):
                place = LineId(piece.position, number)
                parts.append(sse.message("line", line, place))
        if not parts and anyio.current_time() >= beat_at:
            parts = [sse.heartbeat(place)]
        if parts:
            if not await sse.send(request, response, parts, seconds=_STALL_SECONDS):
                return
            parts, beat_at = [], anyio.current_time() + _HEARTBEAT_SECONDS
    await response.write(sse.message("end", b"{}", place))
