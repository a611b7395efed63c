"""Held tasks: the request by which a manager finds what a worker does not have any more."""

import msgspec
from msgspec import Struct

from pubsubflow.model.wire.messages import Fence


class HeldTasksRequest(Struct, frozen=True, array_like=True):
    """Request which of some tasks a worker does not have; they ran there by the database.

    Attributes:
        fences: Of each the fence.
    """

    fences: tuple[Fence, ...]


class HeldTasksReply(Struct, frozen=True, array_like=True):
    """What a worker does not have.

    Attributes:
        missing: Fences of tasks that it does not have, and of which no result is left to store: if
            there was one, JetStream had confirmed it before this reply.
    """

    missing: tuple[Fence, ...]


decode_held_request = msgspec.msgpack.Decoder(HeldTasksRequest).decode
decode_held_reply = msgspec.msgpack.Decoder(HeldTasksReply).decode
