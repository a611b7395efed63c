"""Reading server-sent events: the format, and going on after a break without loss or double.

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
    DagNews,
    DatasetNews,
    ImportNews,
    Kind,
    ResetNews,
    RunNews,
    TaskNews,
)

_LINE_END = re.compile(r"\r\n|\n|\r")
News = RunNews | TaskNews | DatasetNews | DagNews | ImportNews | ResetNews
Open = Callable[[str | None], AbstractAsyncContextManager[AsyncIterator[bytes]]]
_TYPES: dict[str, type[News]] = {
    Kind.RUN: RunNews,
    Kind.TASK: TaskNews,
    Kind.DATASET: DatasetNews,
    Kind.DAG: DagNews,
    Kind.IMPORT: ImportNews,
    RESET: ResetNews,
}
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 10.0


class Message(Struct, frozen=True):
    """A message: its id, the name of the event, and what it says."""

    id: str
    event: str
    data: str

    def news(self) -> News | None:
        """Return what a message of the live stream says; None for a kind not known here.

        Raises:
            msgspec.ValidationError: It is not of that kind's form.
        """
        kind = _TYPES.get(self.event)
        return None if kind is None else msgspec.json.decode(self.data, type=kind)


class Parser:
    """Turns bytes as they come into messages.

    Args:
        last_id: The id to go on after, if this is not the first connection.

    Attributes:
        last_id: The id to go on after now.
        retry_seconds: After how long to connect again, if the server says so.
    """

    def __init__(self, last_id: str | None = None) -> None:
        self.last_id = last_id
        self.retry_seconds: float | None = None
        self._id = last_id or ""
        self._decode = codecs.getincrementaldecoder("utf-8-sig")(errors="replace").decode
        self._rest = ""
        self._event = ""
        self._data: list[str] = []

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that are complete now."""
        text = self._rest + self._decode(data)
        held = text.endswith("\r")  # perhaps half of a line's end
        lines = _LINE_END.split(text[:-1] if held else text)
        self._rest = lines.pop() + ("\r" if held else "")
        return [made for line in lines if (made := self._line(line)) is not None]

    def _line(self, line: str) -> Message | None:
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

    def _dispatch(self) -> Message | None:
        self.last_id = self._id or None
        event, data = self._event or "message", self._data
        self._event, self._data = "", []
        return Message(self._id, event, "\n".join(data)) if data else None


async def follow(
    connect: Open, *, last_id: str | None = None, breaks: tuple[type[Exception], ...]
) -> AsyncIterator[Message]:
    """Yield messages, over as many connections as it takes.

    Args:
        connect: Connects to go on after an id, and gives the bytes that come.
        last_id: Go on after this message; None to begin with what happens from now on.
        breaks: What is raised when a connection breaks or cannot be made and another may do.
    """
    pause = _FIRST_PAUSE_SECONDS
    while True:
        parser = Parser(last_id)
        try:
            async with connect(last_id) as chunks:
                async for chunk in chunks:
                    for message in parser.feed(chunk):
                        last_id = message.id or None
                        yield message
                    last_id = parser.last_id
                    pause = parser.retry_seconds or _FIRST_PAUSE_SECONDS
        except breaks:
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        await anyio.sleep(pause)
