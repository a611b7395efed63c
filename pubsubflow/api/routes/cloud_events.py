"""Routes that take CloudEvents 1.0 in: binary, structured and batched.

The `subject` names the dataset.

Source: CloudEvents 1.0.2, its JSON format, HTTP protocol binding and partitioning extension.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from pubsubflow.api.auth.middleware import PRINCIPAL, check_datasets
from pubsubflow.api.http import routing
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import NoQuery, decode_body
from pubsubflow.api.http.routing import Access, MediaBody, Route
from pubsubflow.api.routes.events import record, too_many_events
from pubsubflow.model.api.resources import PostedEvents
from pubsubflow.model.cloud_events import (
    BATCH,
    HEADER,
    STRUCTURED,
    BadCloudEvent,
    read_binary,
    read_event,
)
from pubsubflow.model.wire.commands import CommandHandler, RecordEvents
from pubsubflow.model.wire.messages import NewEvent

PATH = "/api/v1/cloudevents"
_SENT = MediaBody(
    (STRUCTURED, BATCH, "*/*"),
    f"An event as {STRUCTURED}, an array of them as {BATCH}, or the data of one, JSON or text of "
    "any other type, with its attributes in headers `ce-…`. The `subject` is the dataset's URI.",
)

_batch = msgspec.json.Decoder(list[dict[str, Any]])
_one = msgspec.json.Decoder(dict[str, Any])
_any = msgspec.json.Decoder()


class CloudEventRoutes:
    """Handler of `/api/v1/cloudevents`.

    Args:
        commands: Records events.
        max_events: Events in one batch at most.
    """

    def __init__(self, commands: CommandHandler, max_events: int) -> None:
        self._commands = commands
        self._max_events = max_events

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        yield routing.post(
            PATH,
            self.post,
            access=Access.EMITTER,
            query=NoQuery,
            body=_SENT,
            responses={200: PostedEvents, 202: PostedEvents},
            ingests_events=True,
            headers={
                "ce-specversion": "Of an event in binary mode: `1.0`.",
                "ce-id": "Of an event in binary mode; unique within its source.",
                "ce-source": "Of an event in binary mode.",
                "ce-type": "Of an event in binary mode.",
                "ce-subject": "Of an event in binary mode: URI of the dataset.",
                "ce-time": "Of an event in binary mode: when it happened.",
                "ce-partitionkey": "Of an event in binary mode: the partition that was updated.",
            },
        )

    async def post(self, request: web.Request) -> web.Response:
        """Record CloudEvents; respond once they are durable, as for `/api/v1/datasets/events`."""
        data = await request.read()
        kind = request.content_type
        if kind == BATCH:
            events = decode_body(data, _batch)
        elif kind == STRUCTURED:
            events = [decode_body(data, _one)]
        elif f"{HEADER}specversion" in request.headers:
            events = [_binary(request, data)]
        else:
            raise BadRequest(
                f"not a CloudEvent: send ce-… headers, {STRUCTURED} or {BATCH}", status=415
            )
        if len(events) > self._max_events:
            raise too_many_events(len(events), self._max_events)
        parsed = [_parse(event, index) for index, event in enumerate(events)]
        check_datasets(request[PRINCIPAL], (event.dataset for event, _ in parsed), "subject")
        command = RecordEvents(
            tuple(event for event, _ in parsed), tuple(key for _, key in parsed), "cloudevents"
        )
        return await record(command, self._commands)


def _binary(request: web.Request, data: bytes) -> dict[str, Any]:
    """Return an event in binary mode: its attributes are headers, its data is the body."""
    try:
        return read_binary(
            request.headers, request.content_type, data, parse=partial(decode_body, decoder=_any)
        )
    except BadCloudEvent as error:
        raise BadRequest(str(error), status=error.status, field=error.field) from error


def _parse(event: dict[str, Any], index: int) -> tuple[NewEvent, str]:
    try:
        return read_event(event)
    except BadCloudEvent as error:
        raise BadRequest(
            f"event {index}: {error}", status=error.status, index=index, field=error.field
        ) from error
