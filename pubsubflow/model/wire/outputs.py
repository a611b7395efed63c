"""Outputs of a task besides its result: values pushed by key, and its rendered fields."""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from pubsubflow.model.wire.messages import encode


class TaskOutputs(Struct, frozen=True, array_like=True):
    """What a task leaves behind besides its result.

    Attributes:
        pushed: Key → encoded value, in the order in which they were pushed.
        rendered: Name of a template field → its text as it was rendered, without secrets.
    """

    pushed: dict[str, Raw] = {}
    rendered: dict[str, str] = {}


class PulledValues(Struct, frozen=True, array_like=True):
    """The reply to a request for results by key.

    Attributes:
        values: Per instance that has one its map index, its encoded value, and whether that is the
            whole result, of which the key may be a part.
        keys: The keys that were pushed by any of the instances.
        problem: Why there can be none: the run or the task does not exist, or retention has
            removed them.
        mapped: Whether the task is mapped.
    """

    values: tuple[tuple[int, Raw, bool], ...] = ()
    keys: tuple[str, ...] = ()
    problem: str | None = None
    mapped: bool = False


def encode_outputs(pushed: dict[str, bytes], rendered: dict[str, str]) -> bytes:
    """Return encoded outputs; no bytes when there are none."""
    if not pushed and not rendered:
        return b""
    return encode(TaskOutputs({key: Raw(data) for key, data in pushed.items()}, rendered))


def decode_outputs(data: bytes | None) -> TaskOutputs:
    """Return the outputs of a task that has left some, or none."""
    return _decode_outputs(data) if data else TaskOutputs()


def pushed_values(data: bytes | None) -> dict[str, Any]:
    """Return key → decoded value of encoded outputs."""
    return {key: _decode(value) for key, value in decode_outputs(data).pushed.items()}


_decode = msgspec.msgpack.Decoder().decode
_decode_outputs = msgspec.msgpack.Decoder(TaskOutputs).decode
decode_pulled = msgspec.msgpack.Decoder(PulledValues).decode
