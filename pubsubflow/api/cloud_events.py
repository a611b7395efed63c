"""CloudEvents 1.0 over HTTP: binary, structured and batched; the `subject` names the dataset.

Source: CloudEvents 1.0.2, its JSON format, HTTP protocol binding and partitioning extension.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Any
from urllib.parse import unquote

import msgspec
from aiohttp import web
from msgspec import Meta

from pubsubflow.api import routing
from pubsubflow.api.gate import check_datasets
from pubsubflow.api.posting import check_count, record
from pubsubflow.api.problems import BadRequest
from pubsubflow.api.questions import NoQuery, check_numbers, decode, misfit, query, utc
from pubsubflow.api.routing import Access, Media, Route
from pubsubflow.errors import DefinitionError
from pubsubflow.model.calls import Calls, PostEvents
from pubsubflow.model.datasets import normalise_uri
from pubsubflow.model.messages import NewEvent
from pubsubflow.model.traces import read_trace
from pubsubflow.model.views import PostedEvents

PATH = "/api/v1/cloudevents"
_BATCH = "application/cloudevents-batch+json"
_STRUCTURED = "application/cloudevents+json"
_HEADER = "ce-"
_SENT = Media(
    (_STRUCTURED, _BATCH, "*/*"),
    f"An event as {_STRUCTURED}, an array of them as {_BATCH}, or the data of one, JSON or text of "
    "any other type, whose attributes stand in headers `ce-…`. The `subject` is the dataset's URI.",
)
_OWN = frozenset({"specversion", "subject", "time", "data", "data_base64", "datacontenttype"})

Text = Annotated[str, Meta(min_length=1, max_length=512)]


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


_batch = msgspec.json.Decoder(list[dict[str, Any]])
_one = msgspec.json.Decoder(dict[str, Any])
_any = msgspec.json.Decoder()


class CloudEvents:
    """Handler of `/api/v1/cloudevents`.

    Args:
        calls: Records events.
        max_events: In one batch at most.
    """

    def __init__(self, calls: Calls, max_events: int) -> None:
        self._calls = calls
        self._max_events = max_events

    def routes(self) -> Iterable[Route]:
        """Return what is served."""
        yield routing.post(
            PATH,
            self.post,
            access=Access.EMITTER,
            query=NoQuery,
            body=_SENT,
            answers={200: PostedEvents, 202: PostedEvents},
            problems=(415,),
            headers={
                "ce-specversion": "Of an event in binary mode: `1.0`.",
                "ce-id": "Of an event in binary mode; unique within its source.",
                "ce-source": "Of an event in binary mode.",
                "ce-type": "Of an event in binary mode.",
                "ce-subject": "Of an event in binary mode: URI of the dataset.",
                "ce-time": "Of an event in binary mode: when it happened.",
                "ce-partitionkey": "Of an event in binary mode: which part has news.",
            },
        )

    async def post(self, request: web.Request) -> web.Response:
        """Record events; answer once they are durable, as for `/api/v1/datasets/events`."""
        query(request, NoQuery)
        data = await request.read()
        kind = request.content_type
        if kind == _BATCH:
            told = decode(data, _batch)
        elif kind == _STRUCTURED:
            told = [decode(data, _one)]
        elif f"{_HEADER}specversion" in request.headers:
            told = [_binary(request.headers, kind, data)]
        else:
            raise BadRequest(
                f"this is no CloudEvent: send ce-… headers, {_STRUCTURED} or {_BATCH}", status=415
            )
        check_count(len(told), self._max_events)
        read = [_read(event, index) for index, event in enumerate(told)]
        check_numbers([event.extra for event, _ in read])
        check_datasets(request, (event.dataset for event, _ in read), "subject")
        call = PostEvents(
            tuple(event for event, _ in read), tuple(key for _, key in read), "cloudevents"
        )
        return await record(call, self._calls)


def _binary(headers: Mapping[str, str], kind: str, data: bytes) -> dict[str, Any]:
    """Return an event whose attributes are headers and whose data is the body."""
    event: dict[str, Any] = {
        name.lower().removeprefix(_HEADER): unquote(value)
        for name, value in headers.items()
        if name.lower().startswith(_HEADER)
    }
    if not data:
        return event
    if kind == "application/json" or kind.endswith("+json"):
        return event | {"data": decode(data, _any)}
    try:
        return event | {"data": data.decode()}
    except UnicodeDecodeError:
        raise BadRequest(
            f"data of type {kind} is no text: send JSON, or store it and send where it is",
            status=415,
        ) from None


def _read(told: dict[str, Any], index: int) -> tuple[NewEvent, str]:
    """Return the event to record, and the key under which it comes again.

    An id is unique within its source.
    """
    try:
        known = msgspec.convert(told, _Attributes)
    except msgspec.ValidationError as error:
        problem = misfit(error, status=422, of=f"event {index}")
        raise BadRequest(str(problem), index=index, field=problem.field) from error
    if known.specversion != "1.0":
        raise BadRequest(
            f"specversion {known.specversion!r} is not understood; 1.0 is", index=index
        )
    if known.subject is None:
        raise BadRequest(
            "the subject must name the dataset, such as s3://lake/orders",
            index=index,
            field="subject",
        )
    try:
        uri = normalise_uri(known.subject)
    except DefinitionError as error:
        raise BadRequest(str(error), index=index, field="subject") from error
    moment = utc(known.time, field="time", index=index)
    event = NewEvent(uri, _extra(told), known.partitionkey, moment, trace=known.trace)
    text = f"cloudevent\n{uri}\n{known.source}\n{known.id}"
    return event, blake2b(text.encode(), digest_size=20).hexdigest()


def _extra(told: dict[str, Any]) -> dict[str, Any]:
    """Return the data as an object, with the attributes under `cloudevent`."""
    attributes = {name: value for name, value in told.items() if name not in _OWN}
    data = told.get("data")
    if isinstance(data, dict):
        return {**data, "cloudevent": attributes}
    if "data_base64" in told:
        return {"data_base64": told["data_base64"], "cloudevent": attributes}
    return ({} if data is None else {"data": data}) | {"cloudevent": attributes}
