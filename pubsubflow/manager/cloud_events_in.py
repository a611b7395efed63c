"""Events that others publish straight onto the bus, as CloudEvents.

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
from pubsubflow.model.wire.commands import PostEvents

LETTER = "cloudevent"
"""The kind of a dead letter whose payload is a CloudEvent in JSON."""
SOURCE = "bus"
_ARRAYS = frozenset([*range(0x90, 0xA0), 0xDC, 0xDD])
"""How a message of our own begins: an array in MessagePack. JSON's objects begin otherwise."""
_FAMILY = "application/cloudevents"
_BATCHES = "application/cloudevents-batch"
_object = msgspec.json.Decoder(dict[str, Any])
_any = msgspec.json.Decoder()


class FromOutside(Struct, frozen=True):
    """What somebody published as a CloudEvent.

    Attributes:
        what: A call that records it, or why none can.
        payload: The event in JSON, for the dead letters.
    """

    what: PostEvents | BadCloudEvent
    payload: bytes


def is_own(headers: Mapping[str, str], data: bytes) -> bool:
    """Whether a message comes from a task of ours, and is no CloudEvent."""
    if not data or data[0] not in _ARRAYS:
        return False
    return not any(_is_cloud(name.lower(), value) for name, value in headers.items())


def read_outside(headers: Mapping[str, str], data: bytes) -> FromOutside:
    """Return what a CloudEvent on the bus comes to."""
    named = {name.lower(): value for name, value in headers.items()}
    kind = _kind(named.get("content-type", ""))
    binary = not kind.startswith(_FAMILY) and f"{HEADER}specversion" in named
    try:
        if binary:
            of = _kind(named.get(f"{HEADER}datacontenttype", kind))
            told = read_binary(named, of or JSON, data, parse=_parse)
        else:
            told = _read_structured(kind, data)
        event, key = read_event(told)
        what: PostEvents | BadCloudEvent = PostEvents((event,), (key,), SOURCE)
    except BadCloudEvent as error:
        what = error
    return FromOutside(what, kept_event(named, data) if binary else data)


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
        return _object.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadCloudEvent(f"the message is no CloudEvent in JSON: {error}") from error


def _parse(data: bytes) -> Any:
    try:
        return _any.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadCloudEvent(f"the data is no JSON: {error}") from error
