"""Fetches what is too large to travel along, piece by piece; hands over events."""

from collections.abc import Generator
from typing import TypeVar

import msgspec

from pubsubflow.errors import Unavailable
from pubsubflow.model.messages import AskEvents, AskResult, EventInfo, Piece, PublishedEvent
from pubsubflow.runner.protocol import Question

Answer = TypeVar("Answer")
Questions = Generator[Question, Piece, Answer]
_decode_events = msgspec.msgpack.Decoder(tuple[EventInfo, ...]).decode


def result_pieces(question: AskResult) -> Questions[bytes]:
    """Yield questions until the whole encoded result is here, and return it.

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


def _good(piece: Piece) -> Piece:
    if piece.error is not None:
        raise Unavailable(f"the manager did not answer the task's question: {piece.error}")
    return piece
