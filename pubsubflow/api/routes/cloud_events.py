"""CloudEvents 1.0 over HTTP: binary, structured and batched; the `subject` names the dataset.

Source: CloudEvents 1.0.2, its JSON format, HTTP protocol binding and partitioning extension.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from pubsubflow.api.auth.middleware import check_datasets
from pubsubflow.api.http import routing
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import NoQuery, decode, query
from pubsubflow.api.http.routing import Access, Media, Route
from pubsubflow.api.routes.posting import check_count, record
from pubsubflow.model.api.resources import PostedEvents
from pubsubflow.model.cloud_events import (
    BATCH,
    HEADER,
    STRUCTURED,
    BadCloudEvent,
    read_binary,
    read_event,
)
from pubsubflow.model.wire.commands import Calls, PostEvents
from pubsubflow.model.wire.messages import NewEvent

PATH = "/api/v1/cloudevents"
_SENT = Media(
    (STRUCTURED, BATCH, "*/*"),
    f"An event as {STRUCTURED}, an array of them as {BATCH}, or the data of one, JSON or text of "
    "any other type, whose attributes stand in headers `ce-…`. The `subject` is the dataset's URI.",
)

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
            intake=True,
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
        if kind == BATCH:
            told = decode(data, _batch)
        elif kind == STRUCTURED:
            told = [decode(data, _one)]
        elif f"{HEADER}specversion" in request.headers:
            told = [_binary(request, data)]
        else:
            raise BadRequest(
                f"this is no CloudEvent: send ce-… headers, {STRUCTURED} or {BATCH}", status=415
            )
        check_count(len(told), self._max_events)
        read = [_read(event, index) for index, event in enumerate(told)]
        check_datasets(request, (event.dataset for event, _ in read), "subject")
        call = PostEvents(
            tuple(event for event, _ in read), tuple(key for _, key in read), "cloudevents"
        )
        return await record(call, self._calls)


def _binary(request: web.Request, data: bytes) -> dict[str, Any]:
    """Return an event whose attributes are headers and whose data is the body."""
    try:
        return read_binary(
            request.headers, request.content_type, data, parse=partial(decode, decoder=_any)
        )
    except BadCloudEvent as error:
        raise BadRequest(str(error), status=error.status, field=error.field) from error


def _read(told: dict[str, Any], index: int) -> tuple[NewEvent, str]:
    try:
        return read_event(told)
    except BadCloudEvent as error:
        raise BadRequest(
            f"event {index}: {error}", status=error.status, index=index, field=error.field
        ) from error
