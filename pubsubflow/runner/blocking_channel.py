"""The runner's end of the stream, for a process that may block on it."""

import contextlib
import socket
import threading
from collections import deque

from pubsubflow.model.wire.worker_requests import Piece, decode_piece
from pubsubflow.runner.frames import FrameDecoder, send_frame
from pubsubflow.runner.protocol import ANSWER, NUMBERED, Question, question_frame

_CHUNK_BYTES = 65_536


class Channel:
    """Frames to and from the worker; questions may come from any thread.

    Args:
        sock: The connected socket, blocking.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._decoder = FrameDecoder()
        self._waiting: deque[bytes] = deque()
        self._questions = 0
        self._sending = threading.Lock()
        self._asking = threading.Lock()

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
        with self._sending:
            send_frame(self._sock, frame)

    def ask(self, question: Question) -> Piece:
        """Ask the worker and wait for the answer.

        Raises:
            EOFError: The worker is gone.
        """
        with self._asking:
            self._questions += 1
            self.send(question_frame(self._questions, question))
            others: list[bytes] = []
            while True:
                frame = self.receive()
                if frame[0] == ANSWER and NUMBERED.unpack_from(frame)[1] == self._questions:
                    self._waiting.extendleft(reversed(others))
                    return decode_piece(frame[NUMBERED.size :])
                others.append(frame)

    def _read(self, flags: int) -> None:
        data = self._sock.recv(_CHUNK_BYTES, flags)
        if not data:
            raise EOFError
        self._waiting.extend(self._decoder.feed(data))
