"""CloudEvents 1.0 as they come in and go out, whatever carries them; `subject` names the dataset.

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
from pubsubflow.model.datasets import normalise_uri
from pubsubflow.model.traces import read_trace
from pubsubflow.model.wire.messages import EventInfo, NewEvent

BATCH = "application/cloudevents-batch+json"
STRUCTURED = "application/cloudevents+json"
SOURCE = "/pubsubflow"
UPDATED = "org.pubsubflow.dataset.updated"
HEADER = "ce-"
JSON = "application/json"
_OWN = frozenset({"specversion", "subject", "time", "data", "data_base64", "datacontenttype"})
_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `\$\.(?P<field>\w+)`)?$", flags=re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(\w+)`")
_is_plain = re.compile(r"[!#$&-~]*").fullmatch  # neither blank nor quote nor percent sign
_SAFE = "!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"

Text = Annotated[str, Meta(min_length=1, max_length=512)]


class BadCloudEvent(InvalidInput):
    """What came is no CloudEvent that can be recorded.

    Args:
        detail: What is wrong and what to do.
        field: The attribute that is wrong.
        status: What an HTTP server answers.
    """

    def __init__(self, detail: str, *, field: str | None = None, status: int = 422) -> None:
        super().__init__(detail)
        self.field = field
        self.status = status


class _Attributes(msgspec.Struct, frozen=True):
    """The attributes that count here; all others travel along."""

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
        return read_trace(parent, state if isinstance(state, str) else None)


def read_event(told: Mapping[str, Any]) -> tuple[NewEvent, str]:
    """Return the dataset event that a CloudEvent tells of, and the key under which it comes again.

    An id is unique within its source.

    Args:
        told: Attributes and data, as the JSON format has them.

    Raises:
        BadCloudEvent: An attribute is missing or does not fit.
    """
    try:
        known = msgspec.convert(told, _Attributes)
    except msgspec.ValidationError as error:
        raise _misfit(str(error)) from error
    if known.specversion != "1.0":
        raise BadCloudEvent(f"specversion {known.specversion!r} is not understood; 1.0 is")
    if known.subject is None:
        raise BadCloudEvent(
            "the subject must name the dataset, such as s3://lake/orders", field="subject"
        )
    try:
        uri = normalise_uri(known.subject)
        moment = None if known.time is None else known.time.astimezone(UTC)
    except DefinitionError as error:
        raise BadCloudEvent(str(error), field="subject") from error
    except OverflowError as error:
        raise BadCloudEvent(f"{known.time} is out of range", field="time") from error
    extra = _extra(told)
    try:
        msgspec.msgpack.encode(extra)
    except OverflowError as error:
        raise BadCloudEvent("an integer has more than 64 bits; send it as text") from error
    text = f"cloudevent\n{uri}\n{known.source}\n{known.id}"
    key = blake2b(text.encode(), digest_size=20).hexdigest()
    return NewEvent(uri, extra, known.partitionkey, moment, trace=known.trace), key


def read_binary(
    headers: Mapping[str, str], kind: str, data: bytes, *, parse: Callable[[bytes], Any]
) -> dict[str, Any]:
    """Return an event whose attributes are headers and whose data is the body.

    Args:
        headers: All headers; those of the event begin with `ce-`, their values are
            percent-encoded.
        kind: Content type of the data, without parameters.
        data: The body.
        parse: Reads JSON.

    Raises:
        BadCloudEvent: The data is neither JSON nor text, or a header is no UTF-8.
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
            f"data of type {kind} is no text: send JSON, or store it and send where it is",
            status=415,
        ) from None


def kept_event(headers: Mapping[str, str], data: bytes) -> bytes:
    """Return a CloudEvent of headers and body as JSON, as it came, for a person to mend."""
    event: dict[str, Any] = {
        name.lower().removeprefix(HEADER): value
        if "%" not in value
        else unquote(value, errors="replace")
        for name, value in headers.items()
        if name.lower().startswith(HEADER)
    }
    if data:
        try:
            event["data"] = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            event["data_base64"] = base64.b64encode(data).decode()
    return msgspec.json.encode(event)


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """A CloudEvent that goes out, as the JSON format writes it; see the specification.

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


def told_event(event: EventInfo) -> Told:
    """Return a recorded dataset event as the CloudEvent that tells of it."""
    return Told(
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


def to_headers(told: Told) -> dict[str, str]:
    """Return the attributes of a CloudEvent as headers; its data is the body."""
    headers = {
        "ce-specversion": told.specversion,
        "ce-id": told.id,
        "ce-source": told.source,
        "ce-type": told.type,
        "ce-time": told.time.isoformat(),
    }
    if told.subject is not None:
        headers["ce-subject"] = _quoted(told.subject)
    if told.partitionkey is not None:
        headers["ce-partitionkey"] = _quoted(told.partitionkey)
    if told.runid is not None:
        headers["ce-runid"] = told.runid
    if told.dagid is not None:
        headers["ce-dagid"] = _quoted(told.dagid)
    if told.taskid is not None:
        headers["ce-taskid"] = _quoted(told.taskid)
    return headers


def _quoted(value: str) -> str:
    """Percent-encode what a header cannot hold (HTTP binding 1.0.2, §3.1.3.2)."""
    return value if _is_plain(value) else quote(value, safe=_SAFE)


def _unquoted(name: str, value: str) -> str:
    try:
        text = unquote(value, errors="strict")
        text.encode()
    except UnicodeError:
        text = "\ufffd"
    if "\ufffd" in text:
        attribute = name.lower().removeprefix(HEADER)
        raise BadCloudEvent(f"the header {name} is no UTF-8", field=attribute)
    return text


def _misfit(complaint: str) -> BadCloudEvent:
    found = _PLACE.match(complaint)
    what, field = found.group("what", "field") if found else (complaint, None)
    missing = _MISSING.match(what)
    if missing:
        return BadCloudEvent(f"the attribute {missing[1]} is missing", field=missing[1])
    place = f"the attribute {field}" if field else "it"
    return BadCloudEvent(f"{place} does not fit: {what}", field=field)


def _extra(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data as an object, with the attributes under `cloudevent`."""
    attributes = {name: value for name, value in told.items() if name not in _OWN}
    data = told.get("data")
    if isinstance(data, dict):
        return {**data, "cloudevent": attributes}
    if "data_base64" in told:
        return {"data_base64": told["data_base64"], "cloudevent": attributes}
    return ({} if data is None else {"data": data}) | {"cloudevent": attributes}
