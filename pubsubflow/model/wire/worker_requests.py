"""What workers ask managers, on behalf of their tasks, and the answers. Arrays in MessagePack."""

from enum import StrEnum

import msgspec
from msgspec import Struct

from pubsubflow.model.connections import Connection
from pubsubflow.model.wire.messages import NOT_MAPPED, Step

LOST = "lease lost: "
"""How the answer to RecordStep begins when the task is not the asker's any more."""

REFUSED = "refused: "
"""How an answer begins that is the same however often one asks."""


class AskSource(Struct, frozen=True, array_like=True, tag="source"):
    """Ask a manager for a SourceBundle, from byte `offset` of its encoded form on."""

    hash: str
    offset: int = 0


class AskResult(Struct, frozen=True, array_like=True, tag="result"):
    """Ask for the result of a node: of one instance, or of all as one list.

    Attributes:
        map_index: An instance, or None for all of a mapped node; NOT_MAPPED for a plain one.
        element: Ask for one element of a list result only.
        offset: Bytes already received; answers come in pieces.
    """

    run: int
    node: int
    map_index: int | None = NOT_MAPPED
    element: int | None = None
    offset: int = 0


class AskEvents(Struct, frozen=True, array_like=True, tag="events"):
    """Ask for the events that a run consumed, from `offset` on."""

    run: int
    offset: int = 0


class Lease(StrEnum):
    """What a manager says of a task that comes again to a worker.

    FREE: it is still to be run. VOID: it is over, or handed out anew. TAKEN: another worker that
    lives runs it.
    """

    FREE = "free"
    VOID = "void"
    TAKEN = "taken"


class AskLease(Struct, frozen=True, array_like=True, tag="lease"):
    """Ask whether to run a task that was delivered before; the answer is an encoded Lease."""

    run: int
    node: int
    map_index: int
    attempt: int
    delivery: int
    worker: str


class AskSteps(Struct, frozen=True, array_like=True, tag="steps"):
    """Ask for what a task has recorded, as an encoded tuple of Step, from byte `offset` on."""

    run: int
    node: int
    map_index: int
    offset: int = 0


class RecordStep(Struct, frozen=True, array_like=True, tag="step"):
    """Ask for a step to be recorded; the answer is the encoded Step that stands in the record.

    Another one stands there when the task runs twice for a moment and the other was faster. The
    answer is empty (`total` 0) when the row of a chained task does not exist yet: ask again.
    """

    run: int
    node: int
    map_index: int
    attempt: int
    delivery: int
    step: Step


class AskConnection(Struct, frozen=True, array_like=True, tag="connection"):
    """Ask for a connection with its secrets, on behalf of a task that runs under this fence.

    The answer is an encoded Connection; it is empty (`total` 0) when the row of a chained task does
    not exist yet: ask again.
    """

    run: int
    node: int
    map_index: int
    attempt: int
    delivery: int
    name: str


Ask = AskSource | AskResult | AskEvents | AskLease | AskSteps | RecordStep | AskConnection


class Piece(Struct, frozen=True, array_like=True):
    """A part of an answer.

    Attributes:
        data: Bytes from the asked offset on; for events an encoded tuple of EventInfo.
        total: Length of the whole (bytes, or number of events).
        error: One line when the question has no answer.
    """

    data: bytes
    total: int
    error: str | None = None


def asks_connection(question: bytes) -> bool:
    """Return whether an encoded Ask is an AskConnection."""
    return question[1:].startswith(_CONNECTION)


_CONNECTION = msgspec.msgpack.encode("connection")
decode_ask = msgspec.msgpack.Decoder(Ask).decode
decode_lease = msgspec.msgpack.Decoder(Lease).decode
decode_piece = msgspec.msgpack.Decoder(Piece).decode
decode_connection = msgspec.msgpack.Decoder(Connection).decode
