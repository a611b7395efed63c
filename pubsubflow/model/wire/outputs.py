"""Outputs of a task besides its result: values pushed by key, and its rendered fields."""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw, Struct

from pubsubflow.model.wire.messages import encode
from pubsubflow.model.wire.stored_results import MAX_PARTS

_REFERENCE_BYTES = 200


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


def detach_pushed(
    outputs: bytes, inline_bytes: int, refer: Callable[[int, int], bytes]
) -> tuple[bytes, list[tuple[int, bytes]]]:
    """Return outputs with references in place of large values, and these with their numbers.

    The largest ones are taken out until the others have `inline_bytes` together.

    Args:
        outputs: Encoded outputs.
        inline_bytes: How many bytes they may have.
        refer: Returns the encoded reference to a value by its number, from 1, and size.
    """
    if len(outputs) <= inline_bytes:
        return outputs, []
    found = decode_outputs(outputs)
    pushed, left = dict(found.pushed), len(outputs)
    parts: list[tuple[int, bytes]] = []
    for key, value in sorted(pushed.items(), key=lambda item: -len(bytes(item[1]))):
        data = bytes(value)
        if left <= inline_bytes or len(data) <= _REFERENCE_BYTES or len(parts) == MAX_PARTS:
            break
        number = len(parts) + 1
        parts.append((number, data))
        pushed[key] = Raw(refer(number, len(data)))
        left -= len(data) - len(bytes(pushed[key]))
    return encode(TaskOutputs(pushed, found.rendered)), parts


def decode_outputs(data: bytes | None) -> TaskOutputs:
    """Return the outputs of a task that has left some, or none."""
    return _decode_outputs(data) if data else TaskOutputs()


def pushed_values(data: bytes | None) -> dict[str, Any]:
    """Return key → decoded value of encoded outputs."""
    return {key: _decode(value) for key, value in decode_outputs(data).pushed.items()}


_decode = msgspec.msgpack.Decoder().decode
_decode_outputs = msgspec.msgpack.Decoder(TaskOutputs).decode
decode_pulled = msgspec.msgpack.Decoder(PulledValues).decode
