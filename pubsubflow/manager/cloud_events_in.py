"""CloudEvents that outsiders publish straight onto the bus.

Source: CloudEvents' NATS binding. A content type of `application/cloudevents` means structured
mode, any other `ce-` headers mean binary mode; a message without headers is structured, as version
1.0.2 has it. The binding has no batches.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from pubsubflow.model.cloud_events import (
    HEADER,
    JSON,
    STRUCTURED,
    BadCloudEvent,
    kept_event,
    read_binary,
    read_event,
)
from pubsubflow.model.json_values import BYTE_ORDER_MARK
from pubsubflow.model.wire.commands import RecordEvents

DEAD_LETTER_KIND = "cloudevent"
"""The kind of a dead letter whose payload is a CloudEvent in JSON."""
SOURCE = "bus"
_ARRAYS = frozenset([*range(0x90, 0xA0), 0xDC, 0xDD])
"""First bytes of a message of our own: an array in MessagePack. JSON's objects begin otherwise."""
_FAMILY = "application/cloudevents"
_BATCHES = "application/cloudevents-batch"
_object = msgspec.json.Decoder(dict[str, Any])
_any = msgspec.json.Decoder()


class FromOutside(Struct, frozen=True):
    """A CloudEvent that an outsider published.

    Attributes:
        received: The command that records it, or why it cannot be recorded.
        payload: The event in JSON, for the dead letters.
    """

    received: RecordEvents | BadCloudEvent
    payload: bytes


def is_own(headers: Mapping[str, str], data: bytes) -> bool:
    """Whether a message comes from a task of ours, rather than being a CloudEvent."""
    if not data or data[0] not in _ARRAYS:
        return False
    return not any(_is_cloud(name.lower(), value) for name, value in headers.items())


def read_outside(headers: Mapping[str, str], data: bytes) -> FromOutside:
    """Read a CloudEvent from a message."""
    named = {name.lower(): value for name, value in headers.items()}
    kind = _kind(named.get("content-type", ""))
    binary = not kind.startswith(_FAMILY) and f"{HEADER}specversion" in named
    try:
        if binary:
            of = _kind(named.get(f"{HEADER}datacontenttype", kind))
            fields = read_binary(named, of or JSON, data, parse=_parse)
        else:
            fields = _read_structured(kind, data)
        event, key = read_event(fields)
        received: RecordEvents | BadCloudEvent = RecordEvents((event,), (key,), SOURCE)
    except BadCloudEvent as error:
        received = error
    return FromOutside(received, kept_event(named, data) if binary else data)


def _is_cloud(name: str, value: str) -> bool:
    return name.startswith(HEADER) or (name == "content-type" and value.startswith(_FAMILY))


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _read_structured(kind: str, data: bytes) -> dict[str, Any]:
    if kind.startswith(_BATCHES):
        raise BadCloudEvent("CloudEvents on NATS have no batches: publish one event a message")
    if kind not in ("", STRUCTURED, JSON):
        raise BadCloudEvent(f"{kind} is not understood: send {STRUCTURED}, or ce-… headers")
    try:
        return _object.decode(data.removeprefix(BYTE_ORDER_MARK))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadCloudEvent(f"the message is not a CloudEvent in JSON: {error}") from error


def _parse(data: bytes) -> Any:
    try:
        return _any.decode(data.removeprefix(BYTE_ORDER_MARK))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadCloudEvent(f"the data is not JSON: {error}") from error
