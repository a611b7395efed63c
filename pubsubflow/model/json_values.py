"""JSON values within the bounds of all that stores or sends them.

JSON has no NaN and no infinity, MessagePack no integer of more than 64 bits, and interpreters and
encoders recurse.
"""

import re
from collections.abc import Iterator
from math import isfinite

import msgspec

MAX_DEPTH = 100
"""Levels of lists and objects."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""What some senders and editors put before a text in UTF-8; readers of JSON may ignore it (RFC 8259
§8.1)."""

_NUL_FAULT = "holds the character \\u0000, which cannot be stored"
_LEAST, _MOST = -(1 << 63), (1 << 64) - 1
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
_ESCAPED_NUL = b"\\u0000"
_find_large = re.compile(rb"[0-9]{19}").search
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', flags=re.DOTALL)
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))


def json_text(value: object) -> str:
    """Return a value as JSON for a column, with NUL characters escaped once more."""
    text = msgspec.json.encode(value).decode()
    return _NUL.sub(r"\1\\\\u0000", text) if "\\u0000" in text else text


def may_be_unfit(data: bytes) -> bool:
    """Return whether a JSON text may hold a value that `json_fault` finds; cheap."""
    return _ESCAPED_NUL in data or _find_large(data) is not None or _is_deep(data)


def _is_deep(data: bytes) -> bool:
    """Whether a JSON text is nested in more than `MAX_DEPTH` levels."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return False
    # Without strings, which may hold brackets, each pass takes the innermost level away.
    brackets = _STRING.sub(b"", data).translate(_BRACKETS, _OTHERS)
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    return True


def json_fault(value: object, name: str, *, nul: bool = False) -> str | None:
    """Return why a value cannot be stored and sent as JSON, with the place and the remedy.

    Args:
        value: Decoded from JSON, or of the types to which JSON is decoded.
        name: Name of the value; a place in it is named like `extra.rows[3]`.
        nul: Whether the character NUL is a fault, which tables keep as its escape.
    """
    # Level by level, not by recursion: it must not hit the limit that it guards.
    level = [(name, value)]
    for _ in range(MAX_DEPTH + 1):
        for place, each in level:
            fault = _scalar_fault(each, nul=nul)
            if fault is not None:
                return f"{place} {fault}"
        level = [child for place, each in level for child in _children(place, each)]
        if not level:
            return None
    return f"{name} is nested more than {MAX_DEPTH} levels deep"


def is_nested_deeper(value: object, levels: int) -> bool:
    """Whether lists and objects in a value are nested in more levels."""
    level = [value]
    for _ in range(levels + 1):
        level = [
            child
            for each in level
            if isinstance(each, dict | list | tuple)
            for child in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return True


def _scalar_fault(value: object, *, nul: bool) -> str | None:
    if isinstance(value, str):
        return _NUL_FAULT if nul and "\x00" in value else None
    if isinstance(value, float) and not isfinite(value):
        return f"is {value}, which JSON cannot hold; write null or a text"
    if isinstance(value, int) and not _LEAST <= value <= _MOST:
        return "is an integer of more than 64 bits; send it as text"
    return None


def _children(place: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, child in value.items():
            if "\x00" in str(key):
                yield f"a key of {place}", key
            yield f"{place}.{key}", child
    elif isinstance(value, list | tuple):
        for index, child in enumerate(value):
            yield f"{place}[{index}]", child
