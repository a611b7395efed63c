"""The channel of an attempt, an import or a trigger to the client that wants it."""

import asyncio
import itertools
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from typing import Any

from pubsubflow.airflow.protocol import Answer, Question, decode_answer, encode
from pubsubflow.runner.frames import pack, receive_frame

GRACE_SECONDS = 8.0


class ClientGoneError(RuntimeError):
    """The client has closed the channel: the answer will not come."""


class Channel:
    """Sends questions and waits for their answers; any thread may.

    Args:
        sock: The stream to the client.
        ends_process: Whether this process ends when the client closes it: first by SIGTERM, then
            for good.
        lazily: Whether a thread reads the stream only from the first question on: who closes it
            before is then noticed elsewhere.
    """

    def __init__(
        self, sock: socket.socket, *, ends_process: bool = False, lazily: bool = False
    ) -> None:
        self._sock = sock
        self._ends_process = ends_process
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self._changed = threading.Condition()
        self._answers: dict[int, Answer] = {}
        self._open = True
        self._ended = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Future[None] | None = None
        self._reader = threading.Thread(target=self._read, name="pubsubflow", daemon=True)
        if not lazily:
            self._reader.start()

    def request(self, question: str, **arguments: Any) -> Any:
        """Return the answer to a question.

        Raises:
            RuntimeError: There is none, and why.
        """
        number = next(self._numbers)
        with self._changed:
            if self._reader.ident is None:
                self._reader.start()
        self.send(Question(number, question, arguments))
        with self._changed:
            while number not in self._answers:
                if not self._open:
                    raise ClientGoneError(f"{question}: the attempt was given up")
                self._changed.wait()
            answer = self._answers.pop(number)
        if answer.error is not None:
            raise RuntimeError(answer.error)
        return answer.value

    def send(self, message: Any) -> None:
        """Send a message; nothing happens when the client is gone."""
        with self._sending, suppress(OSError):
            self._sock.sendall(pack(encode(message)))

    def end(self, message: Any) -> None:
        """Send the last message."""
        self._ended = True
        self.send(message)

    def close(self) -> None:
        """Close the stream after the last message."""
        if self._reader.ident is not None:
            # It wakes up by that; what was sent still arrives.
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RD)
            self._reader.join()
        self._sock.close()

    async def closed(self) -> None:
        """Return when the client has closed the channel."""
        loop = asyncio.get_running_loop()
        self._closing = loop.create_future()
        self._loop = loop
        if self._open:
            await self._closing

    def _read(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                answer = decode_answer(receive_frame(self._sock))
                with self._changed:
                    self._answers[answer.number] = answer
                    self._changed.notify_all()
        with self._changed:
            self._open = False
            self._changed.notify_all()
        if self._loop is not None and self._closing is not None:
            self._loop.call_soon_threadsafe(_resolve, self._closing)
        if self._ends_process and not self._ended:
            self._stop()

    def _stop(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        if not self._ended:
            os.killpg(0, signal.SIGKILL)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
