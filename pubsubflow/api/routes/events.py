"""Routes of datasets and their events: list both, post events."""

from collections.abc import Iterable
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Any
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Meta, Struct, field

from pubsubflow.api.auth.middleware import check_datasets, principal_of
from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import json_with_etag
from pubsubflow.api.http.pagination import Cursor, Number, read_cursor, with_cursor
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import (
    Limit,
    NoQuery,
    PageQuery,
    check_integers,
    parse_body,
    parse_query,
    to_utc,
)
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.errors import DefinitionError
from pubsubflow.model.api.explain import EventWithOutcomes
from pubsubflow.model.api.resources import DatasetView, EventView, Page, PostedEvents
from pubsubflow.model.datasets import normalise_uri
from pubsubflow.model.wire.commands import CommandHandler, RecordedEvent, RecordEvents
from pubsubflow.model.wire.messages import NewEvent
from pubsubflow.store.read.read_models import ReadModels

Key = Annotated[str, Meta(min_length=1, max_length=512)]
_SOURCES = ("api", "cli")
_EVENTS, _DATASETS = "events", "datasets"


class PostedEvent(Struct, frozen=True, forbid_unknown_fields=True):
    """An event as it is posted.

    Attributes:
        dataset: URI of the dataset that was updated.
        extra: Further fields of the event.
        partition: The partition of the dataset that was updated.
        time: When it happened, with a zone; now if left out.
        id: Events of one dataset with the same id are one event.
    """

    dataset: str
    extra: dict[str, Any] = {}
    partition: Key | None = None
    time: Annotated[datetime, Meta(tz=True)] | None = None
    id: Key | None = None


class EventsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of events.

    Attributes:
        dataset: Only events of this URI.
        event: Only this event, with its outcomes.
        outcomes: Return with each event its outcome for every subscribed DAG.
    """

    dataset: str | None = None
    event: UUID | None = None
    outcomes: bool = field(name="fate", default=False)
    limit: Limit = 50
    after: Cursor | None = None


_decoder = msgspec.json.Decoder(PostedEvent | list[PostedEvent])


class EventRoutes:
    """Handlers of `/api/v1/datasets`."""

    def __init__(self, commands: CommandHandler, read_models: ReadModels, max_events: int) -> None:
        self._commands = commands
        self._read_models = read_models
        self._max_events = max_events

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        path = "/api/v1/datasets/events"
        yield routing.post(
            path,
            self.post,
            access=Access.EMITTER,
            query=NoQuery,
            body=PostedEvent | list[PostedEvent],
            responses={200: PostedEvents, 202: PostedEvents},
            ingests_events=True,
            headers={"Idempotency-Key": "The same key again is the same request, done once."},
        )
        yield routing.get(
            path,
            self.list_events,
            query=EventsQuery,
            responses={200: (Page[EventWithOutcomes], Page[EventView])},
            problems=(404,),
            etag=True,
        )
        yield routing.get(
            "/api/v1/datasets",
            self.list_datasets,
            query=PageQuery,
            responses={200: Page[DatasetView]},
            etag=True,
        )

    async def post(self, request: web.Request) -> web.Response:
        """Record events; respond once they are durable.

        202 with their ids; 200 if all of them had been posted before under the same ids.
        """
        parse_query(request, NoQuery)
        posted = await parse_body(request, _decoder)
        events = posted if isinstance(posted, list) else [posted]
        return await record(self._command(events, request), self._commands)

    def _command(self, events: list[PostedEvent], request: web.Request) -> RecordEvents:
        check_count(len(events), self._max_events)
        check_integers([event.extra for event in events])
        request_key = request.headers.get("Idempotency-Key")
        principal = principal_of(request)
        if request_key is not None and principal.datasets is not None:
            # An emitter must not be able to use up a key that another sender is going to use.
            request_key = f"{principal.name}\n{request_key}"
        new_events, keys = [], []
        for index, event in enumerate(events):
            new_events.append(_new_event(event, index))
            keys.append(_key(new_events[-1].dataset, event.id, request_key, index))
        check_datasets(request, (event.dataset for event in new_events))
        return RecordEvents(tuple(new_events), tuple(keys), _source(request))

    async def list_events(self, request: web.Request) -> web.Response:
        """List events, the newest first."""
        params = parse_query(request, EventsQuery)
        dataset = None
        if params.dataset is not None:
            try:
                dataset = normalise_uri(params.dataset)
            except DefinitionError as error:
                raise BadRequest(str(error), status=400, field="dataset") from error
        datasets = self._read_models.datasets
        after = read_cursor(_EVENTS, params.after, Number)
        if params.event is not None:
            return json_with_etag(request, Page([await datasets.event_with_outcomes(params.event)]))
        read = datasets.events_with_outcomes if params.outcomes else datasets.events
        page = await read(limit=params.limit, dataset=dataset, after=after)
        return json_with_etag(request, with_cursor(_EVENTS, page))

    async def list_datasets(self, request: web.Request) -> web.Response:
        """List datasets by URI."""
        params = parse_query(request, PageQuery)
        after = read_cursor(_DATASETS, params.after, str)
        page = await self._read_models.datasets.page(limit=params.limit, after=after)
        return json_with_etag(request, with_cursor(_DATASETS, page))


def check_count(count: int, most: int) -> None:
    """Refuse more events than one request may hold.

    Raises:
        BadRequest: There are too many.
    """
    if count > most:
        raise BadRequest(
            f"{count} events are too many for one request: send at most {most} at a time",
            status=413,
        )


async def record(command: RecordEvents, commands: CommandHandler) -> web.Response:
    """Record events, and respond once they are durable.

    202 with their ids; 200 if all of them had been posted before under the same keys.
    """
    recorded: list[RecordedEvent] = await commands.execute(command) if command.events else []
    duplicates = [index for index, each in enumerate(recorded) if each.duplicate]
    ids = [str(each.event_id) for each in recorded]
    return json_response(
        PostedEvents(ids=ids, duplicates=duplicates),
        status=202 if len(duplicates) < len(ids) else 200,
    )


def _new_event(event: PostedEvent, index: int) -> NewEvent:
    moment = to_utc(event.time, field="time", index=index)
    try:
        return NewEvent(event.dataset, event.extra, event.partition, moment, event.id)
    except DefinitionError as error:
        raise BadRequest(str(error), index=index, field="dataset") from error


def _key(uri: str, event_id: str | None, request_key: str | None, index: int) -> str | None:
    """Return the idempotency key of an event, of a fixed length; None if it has none."""
    if event_id is not None:
        # Ids are unique within a dataset: the senders of two datasets need not know each other.
        text = f"id\n{uri}\n{event_id}"
    elif request_key is not None:
        text = f"request\n{request_key}\n{index}"
    else:
        return None
    # The bytes of a header may be other than UTF-8.
    return blake2b(text.encode(errors="surrogateescape"), digest_size=20).hexdigest()


def _source(request: web.Request) -> str:
    named = request.headers.get("Pubsubflow-Source", "api")
    return named if named in _SOURCES else "api"
