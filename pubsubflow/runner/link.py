"""Frames over a socket on the event loop, at the cost of a bare protocol."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import cast

import anyio

from pubsubflow.runner.frames import FrameDecoder, pack

_HIGH_WATER_BYTES = 1 << 20


class Link(asyncio.Protocol):
    """One end of a stream of frames.

    Args:
        on_frame: Called with each frame as it arrives; without it frames wait for `receive`.
        on_end: Called once, when the other side is gone.
    """

    def __init__(
        self,
        on_frame: Callable[[bytes], None] | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self._decoder = FrameDecoder()
        self._waiting: deque[bytes] = deque()
        self._on_frame = on_frame or self._waiting.append
        self._on_end = on_end
        self._transport: asyncio.Transport | None = None
        self._news = anyio.Event()
        self._writable = anyio.Event()
        self._writable.set()
        self.ended = False

    @classmethod
    async def open(
        cls,
        sock: socket.socket,
        on_frame: Callable[[bytes], None] | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> "Link":
        """Take over a connected unix socket."""
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(lambda: cls(on_frame, on_end), sock=sock)
        return link

    def post(self, frame: bytes) -> None:
        """Send a frame without waiting; what is sent after the end is lost."""
        if not self.ended and self._transport is not None:
            self._transport.write(pack(frame))

    async def send(self, frame: bytes) -> None:
        """Send a frame and wait while more than 1 MiB is on its way.

        Raises:
            anyio.BrokenResourceError: The other side is gone.
        """
        self.post(frame)
        await self._writable.wait()
        if self.ended:
            raise anyio.BrokenResourceError

    async def receive(self) -> bytes:
        """Return the next frame.

        Raises:
            anyio.EndOfStream: The other side is gone.
        """
        while not self._waiting:
            if self.ended:
                raise anyio.EndOfStream
            self._news = anyio.Event()
            await self._news.wait()
        return self._waiting.popleft()

    def close(self) -> None:
        """Close our end; what was posted is still sent."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the transport; called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(_HIGH_WATER_BYTES)

    def data_received(self, data: bytes) -> None:
        """Cut frames; called by the event loop."""
        for frame in self._decoder.feed(data):
            self._on_frame(frame)
        self._news.set()

    def pause_writing(self) -> None:
        """Make `send` wait; called by the event loop."""
        self._writable = anyio.Event()

    def resume_writing(self) -> None:
        """Let `send` go on; called by the event loop."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the end is the end
        """Wake everybody; called by the event loop."""
        self.ended = True
        self._news.set()
        self._writable.set()
        if self._on_end is not None:
            self._on_end()
