"""The client of server-sent events parses them, and resumes after a lost connection.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import codecs
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import anyio
import msgspec
from msgspec import Struct

from pubsubflow.model.changes import (
    RESET,
    Change,
    ChangeKind,
    CheckChanged,
    DagChanged,
    DatasetUpdated,
    ImportChanged,
    RunChanged,
    StreamReset,
    TaskChanged,
)

_LINE_END = re.compile(r"\r\n|\n|\r")
Connect = Callable[[str | None], AbstractAsyncContextManager[AsyncIterator[bytes]]]
_TYPES: dict[str, type[Change | StreamReset]] = {
    ChangeKind.RUN: RunChanged,
    ChangeKind.TASK: TaskChanged,
    ChangeKind.DATASET: DatasetUpdated,
    ChangeKind.DAG: DagChanged,
    ChangeKind.IMPORT: ImportChanged,
    ChangeKind.CHECK: CheckChanged,
    RESET: StreamReset,
}
_FIRST_PAUSE_SECONDS = 0.1
_MAX_PAUSE_SECONDS = 10.0


class StreamMessage(Struct, frozen=True):
    """A message: its id, the name of its event, and its data."""

    id: str
    event: str
    data: str

    def change(self) -> Change | StreamReset | None:
        """Return the change in a message of the live stream; None for an unknown kind.

        Raises:
            msgspec.ValidationError: The data does not match the kind.
        """
        kind = _TYPES.get(self.event)
        return None if kind is None else msgspec.json.decode(self.data, type=kind)


class EventStreamParser:
    """Parses bytes into messages, as they arrive.

    Args:
        last_id: The id to resume after, if this is not the first connection.

    Attributes:
        last_id: The id to resume after now.
        retry_seconds: The pause before a reconnection, if the server has set it.
    """

    def __init__(self, last_id: str | None = None) -> None:
        self.last_id = last_id
        self.retry_seconds: float | None = None
        self._id = last_id or ""
        self._decode = codecs.getincrementaldecoder("utf-8-sig")(errors="replace").decode
        self._rest = ""
        self._event = ""
        self._data: list[str] = []

    def feed(self, data: bytes) -> list[StreamMessage]:
        """Return the messages that are complete now."""
        text = self._rest + self._decode(data)
        # A final CR may be the first half of CR LF: it is kept until the next bytes arrive.
        kept = text.endswith("\r")
        lines = _LINE_END.split(text[:-1] if kept else text)
        self._rest = lines.pop() + ("\r" if kept else "")
        return [made for line in lines if (made := self._line(line)) is not None]

    def _line(self, line: str) -> StreamMessage | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_seconds = int(value) / 1000
        return None

    def _dispatch(self) -> StreamMessage | None:
        self.last_id = self._id or None
        event, data = self._event or "message", self._data
        self._event, self._data = "", []
        return StreamMessage(self._id, event, "\n".join(data)) if data else None


async def follow(
    connect: Connect, *, last_id: str | None = None, breaks: tuple[type[Exception], ...]
) -> AsyncIterator[StreamMessage]:
    """Yield messages, over as many connections as it takes.

    Args:
        connect: Opens a connection that resumes after an id; yields the received bytes.
        last_id: Resume after this message; None to begin with changes from now on.
        breaks: The errors after which another connection is attempted.
    """
    pause = _FIRST_PAUSE_SECONDS
    while True:
        parser = EventStreamParser(last_id)
        try:
            async with connect(last_id) as chunks:
                async for chunk in chunks:
                    for message in parser.feed(chunk):
                        last_id = message.id or None
                        yield message
                    # Heartbeats carry an id without a message: they move the position on too.
                    last_id = parser.last_id
                    pause = parser.retry_seconds or _FIRST_PAUSE_SECONDS
        except breaks:
            pause = min(pause * 2, _MAX_PAUSE_SECONDS)
        await anyio.sleep(pause)
