"""NATS's client protocol: frames and headers that the bus encodes and decodes itself.

Source: https://docs.nats.io/reference/reference-protocols/nats-protocol and ADR-4 (headers).
"""

from collections.abc import Mapping
from functools import lru_cache

from pubsubflow.errors import MessageRefused

HEADER_LINE = b"NATS/1.0"
NO_RESPONDERS = b"NATS/1.0 503"
_ID_BLOCK_BYTES = len("NATS/1.0\r\nNats-Msg-Id: \r\n\r\n")


def check_subject(subject: str) -> None:
    """Check that a subject cannot end its line and inject a command.

    Raises:
        MessageRefused: It is empty, or contains a blank or a control character.
    """
    if not subject or " " in subject or not subject.isprintable():
        raise MessageRefused(f"subject {subject!r} must be printable, without blanks")


def encode_pub(subject: str, reply: str, payload: bytes, block: bytes = b"") -> bytes:
    """Encode a PUB, or an HPUB with a header block; ``reply`` may be empty.

    Raises:
        MessageRefused: The subject is malformed; see `check_subject`.
    """
    if block:
        head = f"HPUB {subject} {reply} {len(block)} {len(block) + len(payload)}"
    else:
        head = f"PUB {subject} {reply} {len(payload)}"
    # The subject is checked in the line: one pass over both, for what is sent most.
    if not subject or head.count(" ") != (4 if block else 3) or not head.isprintable():
        check_subject(subject)
    return b"".join((head.encode(), b"\r\n", block, payload, b"\r\n"))


def encode_pub_with_id(subject: str, reply: str, payload: bytes, message_id: str) -> bytes:
    """Encode an HPUB whose only header is ``Nats-Msg-Id``: the hot path of durable messages.

    Raises:
        MessageRefused: The id is not printable ASCII.
    """
    if not message_id.isascii() or not message_id.isprintable():
        raise MessageRefused(f"message id {message_id!r} must be printable ASCII")
    block_bytes = _ID_BLOCK_BYTES + len(message_id)
    head = (
        f"HPUB {subject} {reply} {block_bytes} {block_bytes + len(payload)}\r\n"
        f"NATS/1.0\r\nNats-Msg-Id: {message_id}\r\n\r\n"
    )
    return head.encode() + payload + b"\r\n"


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """Encode headers as a header block.

    Raises:
        MessageRefused: A name or a value would break its line.
    """
    lines = "".join([f"{_checked(name)}: {value}\r\n" for name, value in headers.items()])
    if not lines.count("\r") == lines.count("\n") == len(headers):
        wrong = next(name for name, value in headers.items() if "\r" in value or "\n" in value)
        raise MessageRefused(f"header {wrong} must be a single line")
    return f"NATS/1.0\r\n{lines}\r\n".encode()


@lru_cache(maxsize=1024)
def _checked(name: str) -> str:
    if not name.isascii() or not name.isprintable() or ":" in name or " " in name or not name:
        raise MessageRefused(f"header name {name!r} must be printable ASCII, without blanks")
    return name


def decode_headers(block: bytes) -> dict[str, str]:
    """Decode a header block; of a repeated name the last value is kept."""
    headers = {}
    for line in block.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            headers[name.strip().decode("ascii", "replace")] = value.strip().decode(
                "utf-8", "replace"
            )
    return headers


def decode_status(block: bytes) -> int:
    """Return the status of an inline status message such as ``NATS/1.0 408``, or 0."""
    digits = block[9:12]
    return int(digits) if block[8:9] == b" " and digits.isdigit() else 0
