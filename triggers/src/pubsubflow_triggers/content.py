"""Message payloads as JSON values."""

from base64 import b64encode
from codecs import BOM_UTF8
from typing import Any

import msgspec

_decode = msgspec.json.Decoder().decode


def content(data: bytes | str) -> Any:
    """Return a message's content: its value if it is JSON, else its text.

    Bytes that are not UTF-8 become `{"base64": …}`.
    """
    try:
        # Some senders put a byte order mark before it (RFC 8259 §8.1).
        if isinstance(data, str):
            return _decode(data.removeprefix("\ufeff"))
        return _decode(data.removeprefix(BOM_UTF8))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    if isinstance(data, str):
        return data
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(data).decode()}


def content_equals(data: bytes, value: Any) -> bool:
    """Return whether a message's content equals a value, as JSON or as plain text."""
    return bool(content(data) == value) or (
        isinstance(value, str) and data == value.encode("utf-8", "surrogatepass")
    )
