"""Clients of a bundle's host: one connection for an import, an attempt or a trigger."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from pubsubflow.airflow.protocol import (
    Answer,
    AttemptReport,
    ClientRequest,
    Question,
    TriggerEnd,
    decode_from_inside,
    encode,
)
from pubsubflow.airflow.structure import LoadedStructure
from pubsubflow.errors import Unavailable
from pubsubflow.runner.frames import HEADER_BYTES, LENGTH, pack, receive_frame, send_frame

_CONNECT_SECONDS = 60.0
_TRY_SECONDS = 0.02

AnswerQuestion = Callable[[Question], Awaitable[Any]]
Last = AttemptReport | TriggerEnd | LoadedStructure


class HostUnreachable(Unavailable):
    """The host of a bundle does not listen, or has closed the connection."""


def _connected(address: str) -> socket.socket | None:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(address)
    except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
        sock.close()
        return None
    except BaseException:
        sock.close()
        raise
    return sock


def _not_ready(address: str) -> HostUnreachable:
    name = Path(address).stem
    return HostUnreachable(
        f"the process with Airflow of bundle {name!r} does not answer after "
        f"{_CONNECT_SECONDS:g} s: the daemon's log says why it does not start"
    )


@contextmanager
def blocking_client(address: str, request: ClientRequest, output: int) -> Iterator[socket.socket]:
    """Connect, send a request, and give the stream to the block.

    Raises:
        HostUnreachable: Nothing listens.
    """
    end = time.monotonic() + _CONNECT_SECONDS
    while (sock := _connected(address)) is None:
        if time.monotonic() > end:
            raise _not_ready(address)
        time.sleep(_TRY_SECONDS)
    with sock:
        socket.send_fds(sock, [b"c"], [output])
        send_frame(sock, encode(request))
        yield sock


def exchange_blocking(sock: socket.socket, answer: Callable[[Question], Any]) -> Last:
    """Answer questions until the last message, and return that.

    Raises:
        HostUnreachable: The process has ended without one.
    """
    try:
        while True:
            message: Question | Last = decode_from_inside(receive_frame(sock))
            if not isinstance(message, Question):
                return message
            send_frame(sock, encode(_answered(message, answer)))
    except (EOFError, ConnectionError):
        raise HostUnreachable("the process that imports the file has ended") from None


def _answered(question: Question, answer: Callable[[Question], Any]) -> Answer:
    try:
        return Answer(question.number, answer(question))
    except Exception as error:  # noqa: BLE001 - raised again where it was requested
        return Answer(question.number, error=str(error))


@asynccontextmanager
async def attempt_client(
    address: str, request: ClientRequest, on_line: Callable[[str], None]
) -> AsyncIterator["AsyncClient"]:
    """Connect, send a request, and give the client to the block; lines of output go to `on_line`.

    Raises:
        HostUnreachable: Nothing listens.
    """
    end = time.monotonic() + _CONNECT_SECONDS
    while (sock := _connected(address)) is None:
        if time.monotonic() > end:
            raise _not_ready(address)
        await asyncio.sleep(_TRY_SECONDS)
    read, write = os.pipe()
    try:
        socket.send_fds(sock, [b"c"], [write])
    finally:
        os.close(write)
    reader, writer = await asyncio.open_unix_connection(sock=sock)
    lines = asyncio.create_task(_lines(read, on_line))
    try:
        writer.write(pack(encode(request)))
        yield AsyncClient(reader, writer)
        await lines
    finally:
        lines.cancel()
        writer.close()


async def _lines(read: int, on_line: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    stream = asyncio.StreamReader(limit=1 << 20)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(read, "rb", 0)
    )
    try:
        while line := await _line(stream):
            on_line(line.decode(errors="replace").rstrip("\n"))
    finally:
        transport.close()


async def _line(stream: asyncio.StreamReader) -> bytes:
    """Return the next line, or the next piece of one that is very long."""
    try:
        return await stream.readline()
    except ValueError:
        return await stream.read(1 << 16)


class AsyncClient:
    """A connection to a host, on an event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def exchange(self, answer: AnswerQuestion) -> Last:
        """Answer questions until the last message, and return that.

        Raises:
            HostUnreachable: The process has ended without one.
        """
        try:
            while True:
                message: Question | Last = decode_from_inside(await self._frame())
                if not isinstance(message, Question):
                    return message
                try:
                    reply = Answer(message.number, await answer(message))
                except Exception as error:  # noqa: BLE001 - raised again where it was requested
                    reply = Answer(message.number, error=str(error))
                self._writer.write(pack(encode(reply)))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise HostUnreachable("the process of the attempt has ended") from None

    async def _frame(self) -> bytes:
        (size,) = LENGTH.unpack(await self._reader.readexactly(HEADER_BYTES))
        return await self._reader.readexactly(size)
