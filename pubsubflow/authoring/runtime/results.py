"""Results of tasks: the permitted types and their encoding."""

import dataclasses
import enum
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from pubsubflow.authoring.datasets import Dataset
from pubsubflow.model.json_values import MAX_DEPTH

MAX_RESULT_BYTES = 1 << 20
NONE = b"\xc0"
"""None as a value among others, where no bytes would say that there is none."""
_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
_RULE = (
    "a result may be None, bool, int, float, str, bytes, a datetime with zone, a list, tuple or "
    "dict with string keys, a msgspec.Struct or a dataclass"
)


class UnsupportedResult(ValueError):  # noqa: N818 - a fact about the value
    """A value that cannot be a result; the message says why and what to do."""


def encode(value: Any, max_bytes: int = MAX_RESULT_BYTES) -> tuple[bytes, int | None]:
    """Return a result in MessagePack, and its length when it is a list, tuple or dict.

    None is encoded as zero bytes.

    Args:
        value: The result.
        max_bytes: How many bytes it may have.

    Raises:
        UnsupportedResult: Its type is not supported, or it is too large.
    """
    # Most tasks return nothing: no bytes are stored or sent for them.
    if value is None:
        return b"", None
    try:
        _check(value, "the result", MAX_DEPTH - 1)
        data = _ENCODER.encode(value)
    except RecursionError:
        raise UnsupportedResult("the result is nested too deeply") from None
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, UnsupportedResult):
            raise
        raise UnsupportedResult(f"the result cannot be encoded: {error}; {_RULE}") from error
    if len(data) > max_bytes:
        setting = "max_bytes" if max_bytes > MAX_RESULT_BYTES else "store"
        raise UnsupportedResult(
            f"the result has {len(data):,} bytes and {max_bytes:,} fit; write it to "
            f"storage and return where it is, or set [results] {setting}"
        )
    return data, len(value) if isinstance(value, list | tuple | dict) else None


def decode(data: bytes) -> Any:
    """Return the value of an encoded result."""
    return msgspec.msgpack.decode(data) if data else None


def _check(value: Any, where: str, levels: int) -> None:
    """Raise UnsupportedResult for a value that MessagePack refuses or changes the type of."""
    if type(value) in _PLAIN:
        return
    if levels < 0:
        # What reads it, the managers among others, may recurse less deep than this process.
        raise UnsupportedResult(
            f"the result holds itself, or is nested more than {MAX_DEPTH} levels deep"
        )
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise UnsupportedResult(
                    f"{where} has the key {key!r}, which is not a string; {_RULE}"
                )
            _check(item, f"{where}[{key!r}]", levels - 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, f"an element of {where}", levels - 1)
    elif names := _field_names(value):
        for name in names:
            _check(getattr(value, name), f"{where}.{name}", levels - 1)
    else:
        _check_single(value, where)


def _check_single(value: Any, where: str) -> None:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise UnsupportedResult(
                f"{where} is a datetime without a time zone; use datetime.now(UTC)"
            )
    elif not isinstance(value, _SINGLE):
        kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        raise UnsupportedResult(f"{where} is a {kind}; {_RULE}")


def _field_names(value: Any) -> tuple[str, ...]:
    if isinstance(value, Struct):
        return value.__struct_fields__
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return tuple(field.name for field in dataclasses.fields(value))
    return ()


def _plainer(value: Any) -> Any:
    """Return a plain value for an instance of a subclass, such as numpy.float64."""
    if isinstance(value, Dataset):
        return value.uri
    for plain in _PLAIN_TYPES:
        if isinstance(value, plain):
            return plain(value)
    raise NotImplementedError


_PLAIN_TYPES: tuple[Any, ...] = (str, int, float, bytes, dict, list, tuple)
_SINGLE = (str, int, float, bytes, enum.Enum, Struct, Dataset)
_ENCODER = msgspec.msgpack.Encoder(enc_hook=_plainer)
