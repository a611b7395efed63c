"""CloudEvents 1.0 are parsed into dataset events, and built from them; `subject` names the dataset.

Source: CloudEvents 1.0.2 and its JSON format; the partitioning extension.
"""

import base64
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Annotated, Any
from urllib.parse import quote, unquote

import msgspec
from msgspec import Meta

from pubsubflow.errors import DefinitionError, InvalidInput
from pubsubflow.model.json_values import BYTE_ORDER_MARK, json_fault
from pubsubflow.model.traces import parse_trace
from pubsubflow.model.wire.messages import EventInfo, NewEvent

BATCH = "application/cloudevents-batch+json"
STRUCTURED = "application/cloudevents+json"
SOURCE = "/pubsubflow"
UPDATED = "org.pubsubflow.dataset.updated"
HEADER = "ce-"
JSON = "application/json"
_OWN = frozenset({"specversion", "subject", "time", "data", "data_base64", "datacontenttype"})
_WHERE = re.compile(r"^(?P<what>.*?)(?: - at `\$\.(?P<field>\w+)`)?$", flags=re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(\w+)`")
_is_plain = re.compile(r"[!#$&-~]*").fullmatch  # neither blank nor quote nor percent sign
_SAFE = "!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"

Text = Annotated[str, Meta(min_length=1, max_length=512)]


class BadCloudEvent(InvalidInput):
    """A CloudEvent is malformed, or cannot be recorded.

    Args:
        detail: What is wrong and what to do.
        field: The attribute that is wrong.
        status: The status of an HTTP response.
    """

    def __init__(self, detail: str, *, field: str | None = None, status: int = 422) -> None:
        super().__init__(detail)
        self.field = field
        self.status = status


class _Attributes(msgspec.Struct, frozen=True):
    """The attributes that are evaluated; all others are kept in the event's extra."""

    specversion: str
    id: Text
    source: Text
    type: Text
    subject: Text | None = None
    time: Annotated[datetime, Meta(tz=True)] | None = None
    partitionkey: Text | None = None
    traceparent: Any = None
    tracestate: Any = None

    @property
    def trace(self) -> str | None:
        """The trace context by the extension Distributed Tracing; None for a malformed one."""
        parent, state = self.traceparent, self.tracestate
        if not isinstance(parent, str):
            return None
        return parse_trace(parent, state if isinstance(state, str) else None)


def read_event(event: Mapping[str, Any]) -> tuple[NewEvent, str]:
    """Return the dataset event of a CloudEvent, and its idempotency key.

    Args:
        event: Attributes and data, in the JSON format.

    Raises:
        BadCloudEvent: An attribute is missing or invalid.
    """
    try:
        known = msgspec.convert(event, _Attributes)
    except msgspec.ValidationError as error:
        raise _bad_attribute(str(error)) from error
    if known.specversion != "1.0":
        raise BadCloudEvent(f"specversion {known.specversion!r} is not supported: send 1.0")
    if known.subject is None:
        raise BadCloudEvent(
            "the subject must name the dataset, such as s3://lake/orders", field="subject"
        )
    try:
        moment = None if known.time is None else known.time.astimezone(UTC)
    except OverflowError as error:
        raise BadCloudEvent(f"{known.time} is out of range", field="time") from error
    extra = _extra(event)
    fault = json_fault(extra, "data")
    if fault is not None:
        raise BadCloudEvent(fault, field="data")
    try:
        found = NewEvent(known.subject, extra, known.partitionkey, moment, trace=known.trace)
    except DefinitionError as error:
        raise BadCloudEvent(str(error), field="subject") from error
    # An id is unique within its source alone.
    text = f"cloudevent\n{found.dataset}\n{known.source}\n{known.id}"
    key = blake2b(text.encode(), digest_size=20).hexdigest()
    return found, key


def structured_event(event: NewEvent, event_id: str) -> bytes:
    """Return a dataset event as a CloudEvent in JSON that `read_event` reads."""
    attributes = {
        "specversion": "1.0",
        "id": event_id,
        "source": SOURCE,
        "type": UPDATED,
        "subject": event.dataset,
        "partitionkey": event.partition,
        "time": event.time,
        "data": event.extra,
    }
    present = {name: value for name, value in attributes.items() if value is not None}
    return msgspec.json.encode(present)


def read_binary(
    headers: Mapping[str, str], kind: str, data: bytes, *, parse: Callable[[bytes], Any]
) -> dict[str, Any]:
    """Return an event in binary mode: its attributes are headers, its data is the body.

    Args:
        headers: All headers; those of the event begin with `ce-`, their values are
            percent-encoded.
        kind: Content type of the data, without parameters.
        data: The body.
        parse: Parses JSON.

    Raises:
        BadCloudEvent: The data is neither JSON nor text, or a header is not UTF-8.
    """
    event: dict[str, Any] = {
        name.lower().removeprefix(HEADER): _unquoted(name, value)
        for name, value in headers.items()
        if name.lower().startswith(HEADER)
    }
    if not data:
        return event
    if kind == JSON or kind.endswith("+json"):
        return event | {"data": parse(data)}
    try:
        return event | {"data": data.decode()}
    except UnicodeDecodeError:
        raise BadCloudEvent(
            f"data of type {kind} is not text: send JSON, or store the data and send its URI",
            status=415,
        ) from None


def kept_event(headers: Mapping[str, str], data: bytes) -> bytes:
    """Return a malformed CloudEvent in binary mode as JSON, for a person to correct."""
    event: dict[str, Any] = {
        name.lower().removeprefix(HEADER): value
        if "%" not in value
        else unquote(value, errors="replace")
        for name, value in headers.items()
        if name.lower().startswith(HEADER)
    }
    if data:
        try:
            event["data"] = msgspec.json.decode(data.removeprefix(BYTE_ORDER_MARK))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            event["data_base64"] = base64.b64encode(data).decode()
    return msgspec.json.encode(event)


class CloudEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """A CloudEvent to send, in the JSON format.

    Attributes:
        partitionkey: The event's partition.
        dagid, runid, taskid: The task that emitted it, if one did.
    """

    id: str
    source: str
    type: str
    time: datetime
    specversion: str = msgspec.field(default_factory=lambda: "1.0")
    subject: str | None = None
    partitionkey: str | None = None
    dagid: str | None = None
    runid: str | None = None
    taskid: str | None = None
    datacontenttype: str = msgspec.field(default_factory=lambda: JSON)
    data: Any = None


def cloud_event_of(event: EventInfo) -> CloudEvent:
    """Return the CloudEvent of a recorded dataset event."""
    return CloudEvent(
        event.event_id,
        SOURCE,
        UPDATED,
        event.time,
        subject=event.dataset,
        partitionkey=event.partition,
        dagid=event.dag_id,
        runid=event.run_id,
        taskid=event.task_id,
        data=event.extra,
    )


def to_headers(event: CloudEvent) -> dict[str, str]:
    """Return the attributes of a CloudEvent as headers, for the binary mode."""
    headers = {
        "ce-specversion": event.specversion,
        "ce-id": event.id,
        "ce-source": event.source,
        "ce-type": event.type,
        "ce-time": event.time.isoformat(),
    }
    if event.subject is not None:
        headers["ce-subject"] = _quoted(event.subject)
    if event.partitionkey is not None:
        headers["ce-partitionkey"] = _quoted(event.partitionkey)
    if event.runid is not None:
        headers["ce-runid"] = event.runid
    if event.dagid is not None:
        headers["ce-dagid"] = _quoted(event.dagid)
    if event.taskid is not None:
        headers["ce-taskid"] = _quoted(event.taskid)
    return headers


def _quoted(value: str) -> str:
    """Percent-encode what a header cannot hold (HTTP binding 1.0.2, §3.1.3.2)."""
    return value if _is_plain(value) else quote(value, safe=_SAFE)


def _unquoted(name: str, value: str) -> str:
    try:
        text = unquote(value, errors="strict")
        # Headers are decoded with surrogates for bytes that are not UTF-8; encoding finds those.
        text.encode()
    except UnicodeError:
        text = "\ufffd"
    if "\ufffd" in text:
        attribute = name.lower().removeprefix(HEADER)
        raise BadCloudEvent(f"the header {name} is not UTF-8", field=attribute)
    return text


def _bad_attribute(message: str) -> BadCloudEvent:
    """Turn a validation error of msgspec into one that names the attribute."""
    found = _WHERE.match(message)
    what, field = found.group("what", "field") if found else (message, None)
    missing = _MISSING.match(what)
    if missing:
        return BadCloudEvent(f"the attribute {missing[1]} is missing", field=missing[1])
    subject = f"the attribute {field}" if field else "the event"
    return BadCloudEvent(f"{subject} is invalid: {what}", field=field)


def _extra(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data as an object, with the attributes under `cloudevent`."""
    attributes = {name: value for name, value in event.items() if name not in _OWN}
    data = event.get("data")
    if isinstance(data, dict):
        return {**data, "cloudevent": attributes}
    if "data_base64" in event:
        return {"data_base64": event["data_base64"], "cloudevent": attributes}
    return ({} if data is None else {"data": data}) | {"cloudevent": attributes}
