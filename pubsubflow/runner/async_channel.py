"""An async channel: frames over a socket on the event loop, at the cost of a reader callback."""

import asyncio
import select
import socket
from collections import deque
from collections.abc import Callable

import anyio

from pubsubflow.runner.frames import LENGTH, MAX_FRAME_BYTES, FrameDecoder, FrameTooLarge

_CHUNK_BYTES = 65_536
_HIGH_WATERMARK_BYTES = 1 << 20


class AsyncChannel:
    """One end of a stream of frames.

    Frames posted in one turn of the loop leave in one write.

    Args:
        sock: The connected socket; the channel owns it.
        on_frame: Called with each frame as it arrives; without it frames wait for `receive`.
        on_end: Called once, when the other side is gone or the channel is closed.

    Attributes:
        ended: Whether no frame comes or goes any more.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_frame: Callable[[bytes], None] | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        sock.settimeout(0)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._decoder = FrameDecoder()
        self._waiting: deque[bytes] = deque()
        self._on_frame = on_frame or self._waiting.append
        self._on_end = on_end
        self._arrived = anyio.Event()
        self._outgoing: list[bytes] = []
        self._unsent = b""
        self._writable = anyio.Event()
        self.ended = False
        self._loop.add_reader(sock, self._read)

    def post(self, frame: bytes) -> None:
        """Send a frame without waiting; what is sent after the end is lost.

        Raises:
            FrameTooLarge: It is longer than 1 GiB.
        """
        if len(frame) > MAX_FRAME_BYTES:
            raise FrameTooLarge(len(frame))
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing += (LENGTH.pack(len(frame)), frame)

    async def send(self, frame: bytes) -> None:
        """Send a frame and wait while more than 1 MiB is on its way.

        Raises:
            anyio.BrokenResourceError: The other side is gone.
        """
        self.post(frame)
        while len(self._unsent) > _HIGH_WATERMARK_BYTES and not self.ended:
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
            self._arrived = anyio.Event()
            await self._arrived.wait()
        return self._waiting.popleft()

    def request_blocking(self, frame: bytes, is_reply: Callable[[bytes], bool]) -> bytes:
        """Send a frame and block the loop until its reply is here; other frames come later.

        Raises:
            EOFError: The other side is gone.
        """
        self.post(frame)
        early: list[bytes] = []
        on_frame, self._on_frame = self._on_frame, early.append
        try:
            while True:
                if self.ended:
                    raise EOFError
                self._flush()
                _poll(self._sock, select.POLLIN | (select.POLLOUT if self._unsent else 0))
                first = len(early)
                self._read()
                for index in range(first, len(early)):
                    if is_reply(early[index]):
                        return early.pop(index)
        finally:
            self._on_frame = on_frame
            # Handled in a later turn of the loop: the caller is user code, and a handler that ran
            # inside it could cancel or start tasks in the middle of its call.
            for found in early:
                self._loop.call_soon(on_frame, found)

    def abandon(self) -> None:
        """Send and receive nothing more, in a forked child: the parent goes on with the stream."""
        self.ended = True
        self._sock.close()

    def close(self) -> None:
        """Close this end, after sending what the socket takes at once."""
        if not self.ended:
            self._flush()
            self._end()

    def _read(self) -> None:
        try:
            data = self._sock.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end()
        for frame in self._decoder.feed(data):
            self._on_frame(frame)
        self._arrived.set()

    def _flush(self) -> None:
        if self.ended:
            return
        data = self._unsent + b"".join(self._outgoing)
        self._outgoing.clear()
        if not data:
            return
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            # Not the end yet: the reader sees it too, after the frames that are still to read.
            return
        if self._unsent and sent == len(data):
            self._loop.remove_writer(self._sock)
            self._writable.set()
        elif sent < len(data) and not self._unsent:
            self._writable = anyio.Event()
            self._loop.add_writer(self._sock, self._flush)
        self._unsent = data[sent:]

    def _end(self) -> None:
        if self.ended:
            return
        self.ended = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._arrived.set()
        self._writable.set()
        if self._on_end is not None:
            self._on_end()


def _poll(sock: socket.socket, events: int) -> None:
    poller = select.poll()
    poller.register(sock, events)
    poller.poll()
