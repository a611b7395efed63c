"""Routes of datasets and their events: list both, post events."""

from collections.abc import Iterable
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Any
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Meta, Struct, field
from msgspec.structs import replace

from pubsubflow.api.auth.middleware import PRINCIPAL, check_datasets
from pubsubflow.api.auth.scopes import check_dataset
from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import json_with_etag
from pubsubflow.api.http.pagination import Cursor, Number, read_cursor, seen_page, with_cursor
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import (
    Limit,
    NoQuery,
    PageQuery,
    decode_body,
    parse_query,
    to_utc,
)
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.api.http.shown import rights_of_request, shown_items
from pubsubflow.errors import DefinitionError, NotFound
from pubsubflow.model.api.datasets import DatasetDetail
from pubsubflow.model.api.explain import EventWithOutcomes
from pubsubflow.model.api.resources import DatasetView, EventView, Page, PostedEvents
from pubsubflow.model.datasets import normalise_uri
from pubsubflow.model.wire.commands import CommandHandler, RecordedEvent, RecordEvents, RequestKey
from pubsubflow.model.wire.messages import NewEvent
from pubsubflow.store.read.datasets import EventFilter
from pubsubflow.store.read.read_models import ReadModels

Key = Annotated[str, Meta(min_length=1, max_length=512)]
_SOURCES = ("api", "cli")
_EVENTS, _DATASETS = "events", "datasets"


class PostedEvent(Struct, frozen=True, forbid_unknown_fields=True):
    """An event as it is posted.

    Attributes:
        dataset: URI of the dataset that was updated.
        extra: Further fields of the event; null for none.
        partition: The partition of the dataset that was updated.
        time: When it happened, with a zone; now if left out.
        id: Events of one dataset with the same id are one event.
    """

    dataset: str
    extra: dict[str, Any] | None = None
    partition: Key | None = None
    time: Annotated[datetime, Meta(tz=True)] | None = None
    id: Key | None = None


class EventsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of events.

    Attributes:
        dataset: Only events of this URI.
        partition: Only events of this partition of the dataset.
        since, until: Bounds of the time at which they became durable; `until` is exclusive.
        event: Only this event, with its outcomes.
        outcomes: Return with each event its outcome for every subscribed DAG.
    """

    dataset: str | None = None
    partition: Key | None = None
    since: datetime | None = None
    until: datetime | None = None
    event: UUID | None = None
    outcomes: bool = field(name="fate", default=False)
    limit: Limit = 50
    after: Cursor | None = None


class DatasetsQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of datasets.

    Attributes:
        text: Only those with this in their URI, in any case.
        held: Only those of which checks hold events.
        stale: Only those that are stale.
    """

    text: Key | None = None
    held: bool = False
    stale: bool = False


class DatasetQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of one dataset.

    Attributes:
        dataset: Its URI.
    """

    dataset: str


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
            headers={
                "Idempotency-Key": "The same key again is the same request, done once; with "
                "another body it is refused (422)."
            },
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
            query=DatasetsQuery,
            responses={200: Page[DatasetView]},
            etag=True,
        )
        yield routing.get(
            "/api/v1/datasets/detail",
            self.show_dataset,
            query=DatasetQuery,
            responses={200: DatasetDetail},
            problems=(404,),
            etag=True,
        )

    async def post(self, request: web.Request) -> web.Response:
        """Record events; respond once they are durable.

        202 with their ids; 200 if all of them had been posted before under the same ids.
        """
        posted = decode_body(await request.read(), _decoder)
        events = posted if isinstance(posted, list) else [posted]
        if len(events) > self._max_events:
            raise too_many_events(len(events), self._max_events)
        return await record(_command(events, request), self._commands)

    async def list_events(self, request: web.Request) -> web.Response:
        """List events, the newest first."""
        params = parse_query(request, EventsQuery)
        dataset = None if params.dataset is None else _uri(params.dataset)
        if params.partition is not None and dataset is None:
            text = "a partition is of a dataset: give dataset=… as well"
            raise BadRequest(text, status=400, field="partition")
        wanted = EventFilter(
            dataset,
            params.partition,
            to_utc(params.since, field="since", status=400),
            to_utc(params.until, field="until", status=400),
        )
        check_dataset(rights_of_request(), dataset)
        datasets = self._read_models.datasets
        after = read_cursor(_EVENTS, params.after, Number)
        if params.event is not None:
            found = shown_items([await datasets.event_with_outcomes(params.event)])
            if not found:
                raise NotFound("event", str(params.event))
            return json_with_etag(request, Page(found))
        read = datasets.events_with_outcomes if params.outcomes else datasets.events
        page: Page[EventView] | Page[EventWithOutcomes] = await seen_page(
            lambda after, limit: read(wanted, limit=limit, after=after),
            after,
            params.limit,
        )
        return json_with_etag(request, with_cursor(_EVENTS, page))

    async def list_datasets(self, request: web.Request) -> web.Response:
        """List datasets by URI."""
        params = parse_query(request, DatasetsQuery)
        rights = rights_of_request()
        page = await self._read_models.datasets.page(
            limit=params.limit,
            after=read_cursor(_DATASETS, params.after, str),
            text=params.text or "",
            held=params.held,
            stale=params.stale,
            among=None if rights is None else rights.seen_datasets(),
        )
        made = await self._read_models.neighbours.count_producers(
            each.dataset for each in page.items
        )
        items = [replace(each, producer_count=made[each.dataset]) for each in page.items]
        page = replace(page, items=items)
        return json_with_etag(request, with_cursor(_DATASETS, page))

    async def show_dataset(self, request: web.Request) -> web.Response:
        """Show a dataset with what produces and consumes its events."""
        params = parse_query(request, DatasetQuery)
        uri = _uri(params.dataset)
        check_dataset(rights_of_request(), uri)
        found = await self._read_models.datasets.detail(uri)
        return json_with_etag(request, found)


def _uri(text: str) -> str:
    """Return the URI of a query, as it is stored.

    Raises:
        BadRequest: It is not one.
    """
    try:
        return normalise_uri(text)
    except DefinitionError as error:
        raise BadRequest(str(error), status=400, field="dataset") from error


def too_many_events(count: int, most: int) -> BadRequest:
    """Return the refusal of a request with more events than one may hold."""
    return BadRequest(
        f"{count} events are too many for one request: send at most {most} at a time", status=413
    )


async def record(command: RecordEvents, commands: CommandHandler) -> web.Response:
    """Record events, and respond once they are durable.

    202 with their ids; 200 if all of them had been posted before under the same keys.
    """
    recorded: list[RecordedEvent] = await commands.execute(command) if command.events else []
    duplicates = [index for index, each in enumerate(recorded) if each.duplicate]
    ids = [each.event_id for each in recorded]
    return json_response(
        PostedEvents(ids=ids, duplicates=duplicates),
        status=202 if len(duplicates) < len(ids) else 200,
    )


def _command(posted: list[PostedEvent], request: web.Request) -> RecordEvents:
    """Return the command to record events.

    Raises:
        BadRequest: One is malformed, or the sender may not post it; none is to be recorded then.
    """
    principal = request[PRINCIPAL]
    request_key = request.headers.get("Idempotency-Key")
    if request_key is not None and principal.datasets is not None:
        # An emitter must not be able to use up a key that another sender is going to use.
        request_key = f"{principal.name}\n{request_key}"
    events: list[NewEvent] = []
    keys: list[str | None] = []
    for index, each in enumerate(posted):
        moment = None if each.time is None else to_utc(each.time, field="time", index=index)
        try:
            event = NewEvent(each.dataset, each.extra or {}, each.partition, moment, each.id)
        except DefinitionError as error:
            raise BadRequest(str(error), index=index, field="dataset") from error
        events.append(event)
        if each.id is not None:
            # Ids are unique within a dataset: the senders of two datasets need not know each other.
            keys.append(_digest(f"id\n{event.dataset}\n{each.id}"))
        elif request_key is not None:
            keys.append(_digest(f"request\n{request_key}\n{index}"))
        else:
            keys.append(None)
    if principal.datasets is not None:
        check_datasets(principal, (event.dataset for event in events))
    source = request.headers.get("Pubsubflow-Source")
    return RecordEvents(
        tuple(events),
        tuple(keys),
        source if source in _SOURCES else "api",
        request=None if request_key is None else _request_key(request_key, events),
    )


def _request_key(key: str, events: list[NewEvent]) -> RequestKey:
    """Return the key of a request with a digest of its body."""
    # Of the events, not of the bytes: a client may write the same JSON in another order.
    body = msgspec.json.encode(events, order="sorted")
    return RequestKey(_digest(f"request\n{key}"), blake2b(body, digest_size=20).digest())


def _digest(key: str) -> str:
    """Return an idempotency key in a fixed length."""
    # The bytes of a header may be other than UTF-8.
    return blake2b(key.encode(errors="surrogateescape"), digest_size=20).hexdigest()
