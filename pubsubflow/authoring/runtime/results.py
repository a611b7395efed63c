"""What tasks may return, and its encoding."""

import dataclasses
import enum
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

MAX_RESULT_BYTES = 1 << 20
_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
_RULE = (
    "a result may be None, bool, int, float, str, bytes, a datetime with zone, a list, tuple or "
    "dict with text keys, a msgspec.Struct or a dataclass"
)


class BadResult(ValueError):  # noqa: N818 - a fact about the value
    """A value that cannot be a result; its text says why and what to do."""


def encode(value: Any) -> tuple[bytes, int | None]:
    """Return a result in MessagePack, and its length when it is a list or tuple.

    None is no bytes at all.

    Raises:
        BadResult: Its type cannot be carried, or it has more than 1,048,576 bytes.
    """
    if value is None:
        return b"", None
    try:
        _check(value, "the result")
        data = _ENCODER.encode(value)
    except RecursionError:
        raise BadResult("the result holds itself, or is nested too deeply") from None
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, BadResult):
            raise
        raise BadResult(f"the result cannot be carried: {error}; {_RULE}") from error
    if len(data) > MAX_RESULT_BYTES:
        raise BadResult(
            f"the result has {len(data):,} bytes and {MAX_RESULT_BYTES:,} fit; write it to "
            "storage and return where it is"
        )
    return data, len(value) if isinstance(value, list | tuple) else None


def decode(data: bytes) -> Any:
    """Return the value of an encoded result."""
    return msgspec.msgpack.decode(data) if data else None


def _check(value: Any, where: str) -> None:
    """Raise BadResult for what MessagePack would refuse, or give back as something else."""
    if type(value) in _PLAIN:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise BadResult(f"{where} has the key {key!r}, which is no text; {_RULE}")
            _check(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, f"an element of {where}")
    elif names := _field_names(value):
        for name in names:
            _check(getattr(value, name), f"{where}.{name}")
    else:
        _check_single(value, where)


def _check_single(value: Any, where: str) -> None:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise BadResult(f"{where} is a datetime without a time zone; use datetime.now(UTC)")
    elif not isinstance(value, _SINGLE):
        kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        raise BadResult(f"{where} is a {kind}; {_RULE}")


def _field_names(value: Any) -> tuple[str, ...]:
    if isinstance(value, Struct):
        return value.__struct_fields__
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return tuple(field.name for field in dataclasses.fields(value))
    return ()


def _plainer(value: Any) -> Any:
    """Turn subclasses of the plain types, such as numpy.float64, into these."""
    for plain in _PLAIN_TYPES:
        if isinstance(value, plain):
            return plain(value)
    raise NotImplementedError


_PLAIN_TYPES: tuple[Any, ...] = (str, int, float, bytes, dict, list, tuple)
_SINGLE = (str, int, float, bytes, enum.Enum, Struct)
_ENCODER = msgspec.msgpack.Encoder(enc_hook=_plainer)
