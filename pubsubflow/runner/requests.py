"""Fetches what is too large to travel along, piece by piece; hands over events and steps."""

import time
from collections.abc import Awaitable, Callable, Generator
from typing import TypeVar

import anyio
import msgspec

from pubsubflow.errors import ConfigError, LeaseLost, Unavailable
from pubsubflow.model.connections import Connection
from pubsubflow.model.wire.messages import EventInfo, PublishedEvent, Step, decode_step
from pubsubflow.model.wire.worker_requests import (
    LOST,
    REFUSED,
    AskConnection,
    AskEvents,
    AskResult,
    AskSteps,
    Piece,
    RecordStep,
    decode_connection,
)
from pubsubflow.runner.protocol import Question

_PAUSE_SECONDS = 0.02
_ROW_SECONDS = 10.0

Answer = TypeVar("Answer")
Questions = Generator[Question, Piece, Answer]
_decode_events = msgspec.msgpack.Decoder(tuple[EventInfo, ...]).decode


def result_pieces(question: AskResult | AskSteps) -> Questions[bytes]:
    """Yield questions until the whole encoded result, or record, is here, and return it.

    Raises:
        Unavailable: No manager answers, or there is no such result.
    """
    data = b""
    while True:
        piece = _good((yield msgspec.structs.replace(question, offset=len(data))))
        data += piece.data
        if len(data) >= piece.total or not piece.data:
            return data


def event_pieces(run: int) -> Questions[list[EventInfo]]:
    """Yield questions until all events of a run are here, and return them.

    Raises:
        Unavailable: No manager answers.
    """
    events: list[EventInfo] = []
    while True:
        piece = _good((yield AskEvents(run, len(events))))
        more = _decode_events(piece.data) if piece.data else ()
        events += more
        if len(events) >= piece.total or not more:
            return events


def publication(event: PublishedEvent) -> Questions[None]:
    """Yield the event and return when it is stored.

    Raises:
        Unavailable: The bus refuses it.
    """
    piece = yield event
    if piece.error is not None:
        raise Unavailable(f"the event was not published: {piece.error}")


def connection_asked(question: AskConnection) -> Questions[Connection]:
    """Yield the question until there is an answer, and return the connection.

    Raises:
        LeaseLost: The task is somebody else's by now.
        ConfigError: There is no such connection, or its secrets cannot be decrypted.
        Unavailable: No manager answers.
    """
    give_up_at = time.monotonic() + _ROW_SECONDS
    while True:
        piece = yield question
        if piece.error is not None and piece.error.startswith(LOST):
            raise LeaseLost(piece.error.removeprefix(LOST))
        if piece.error is not None and piece.error.startswith(REFUSED):
            raise ConfigError(piece.error.removeprefix(REFUSED))
        if _good(piece).total:
            return decode_connection(piece.data)
        if time.monotonic() > give_up_at:
            raise Unavailable(
                f"connection {question.name!r} was not read: no manager knows of the task yet"
            )
        time.sleep(_PAUSE_SECONDS)


async def recorded(ask: Callable[[Question], Awaitable[Piece]], question: RecordStep) -> Step:
    """Ask for a step to be recorded until there is an answer, and return what is recorded.

    The row of a task in a chain exists only when the result of the one before is folded.

    Raises:
        LeaseLost: The task is somebody else's by now.
        Unavailable: No manager answers.
    """
    give_up_at = time.monotonic() + _ROW_SECONDS
    while True:
        piece = await ask(question)
        if piece.error is not None and piece.error.startswith(LOST):
            raise LeaseLost(piece.error.removeprefix(LOST))
        if _good(piece).total:
            return decode_step(piece.data)
        if time.monotonic() > give_up_at:
            raise Unavailable(
                f"step {question.step.label!r} was not recorded: no manager knows of the task yet"
            )
        await anyio.sleep(_PAUSE_SECONDS)


def _good(piece: Piece) -> Piece:
    if piece.error is not None:
        raise Unavailable(f"the manager did not answer the task's question: {piece.error}")
    return piece
