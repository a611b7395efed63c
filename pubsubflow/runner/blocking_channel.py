"""A blocking channel: the runner's end of the stream, for a process that may block on it."""

import contextlib
import socket
import threading
from collections import deque

from pubsubflow.model.wire.worker_requests import Chunk, decode_chunk
from pubsubflow.runner.frames import FrameDecoder, send_frame
from pubsubflow.runner.protocol import NUMBERED, REPLY, RunnerRequest, request_frame

_CHUNK_BYTES = 65_536


class BlockingChannel:
    """Frames to and from the worker; requests may come from any thread.

    Args:
        sock: The connected socket, blocking.

    Attributes:
        is_sending: Whether a frame is sent in part; it stays so when a signal interrupts that.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._decoder = FrameDecoder()
        self._waiting: deque[bytes] = deque()
        self._last_request = 0
        self.is_sending = False
        # Lock order: the request lock is held over a whole exchange and takes the send lock
        # inside. A result may be sent meanwhile by the main thread, with the send lock alone.
        self._request_lock = threading.Lock()
        self._send_lock = threading.Lock()

    def receive(self) -> bytes:
        """Wait for the next frame and return it.

        Raises:
            EOFError: The worker is gone or has no more work for this process.
        """
        while not self._waiting:
            self._read(0)
        return self._waiting.popleft()

    def arrived(self) -> list[bytes]:
        """Return the frames that are here already, without waiting."""
        with contextlib.suppress(BlockingIOError):
            self._read(socket.MSG_DONTWAIT)
        frames = list(self._waiting)
        self._waiting.clear()
        return frames

    def send(self, frame: bytes) -> None:
        """Send a frame."""
        with self._send_lock:
            self.is_sending = True
            send_frame(self._sock, frame)
            self.is_sending = False

    def request(self, request: RunnerRequest) -> Chunk:
        """Send a request to the worker and wait for the reply.

        Raises:
            EOFError: The worker is gone.
        """
        with self._request_lock:
            self._last_request += 1
            self.send(request_frame(self._last_request, request))
            others: list[bytes] = []
            while True:
                frame = self.receive()
                if frame[0] == REPLY and NUMBERED.unpack_from(frame)[1] == self._last_request:
                    self._waiting.extendleft(reversed(others))
                    return decode_chunk(frame[NUMBERED.size :])
                others.append(frame)

    def _read(self, flags: int) -> None:
        data = self._sock.recv(_CHUNK_BYTES, flags)
        if not data:
            raise EOFError
        self._waiting.extend(self._decoder.feed(data))
