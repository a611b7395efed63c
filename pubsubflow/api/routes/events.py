"""Datasets and their events: posted from outside, and listed."""

from collections.abc import Iterable
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Any
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.auth.middleware import asker, check_datasets
from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import tagged
from pubsubflow.api.http.pagination import Cursor, Number, opened, sealed
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import Limit, NoQuery, PageQuery, body, check_numbers, query, utc
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.api.routes.posting import check_count, record
from pubsubflow.errors import DefinitionError
from pubsubflow.model.api.explain import EventFate
from pubsubflow.model.api.resources import DatasetView, EventView, Page, PostedEvents
from pubsubflow.model.datasets import normalise_uri
from pubsubflow.model.wire.commands import Calls, PostEvents
from pubsubflow.model.wire.messages import NewEvent
from pubsubflow.store.read.read_models import Reading

Key = Annotated[str, Meta(min_length=1, max_length=512)]
_SOURCES = ("api", "cli")
_EVENTS, _DATASETS = "events", "datasets"


class PostedEvent(Struct, frozen=True, forbid_unknown_fields=True):
    """An event as it is posted.

    Attributes:
        dataset: URI of the dataset that has news.
        extra: What there is to say about it.
        partition: Which part of the dataset has news.
        time: When it happened, with a zone; now if left out.
        id: The same id of the same dataset again is the same event.
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
        event: Only this one, with its fate.
        fate: Tell what became of each for every subscription.
    """

    dataset: str | None = None
    event: UUID | None = None
    fate: bool = False
    limit: Limit = 50
    after: Cursor | None = None


_decoder = msgspec.json.Decoder(PostedEvent | list[PostedEvent])


class Events:
    """Handlers of `/api/v1/datasets`."""

    def __init__(self, calls: Calls, reading: Reading, max_events: int) -> None:
        self._calls = calls
        self._reading = reading
        self._max_events = max_events

    def routes(self) -> Iterable[Route]:
        """Return what is served."""
        path = "/api/v1/datasets/events"
        yield routing.post(
            path,
            self.post,
            access=Access.EMITTER,
            query=NoQuery,
            body=PostedEvent | list[PostedEvent],
            answers={200: PostedEvents, 202: PostedEvents},
            intake=True,
            headers={"Idempotency-Key": "The same key again is the same request, done once."},
        )
        yield routing.get(
            path,
            self.list_events,
            query=EventsQuery,
            answers={200: (Page[EventFate], Page[EventView])},
            problems=(404,),
            tagged=True,
        )
        yield routing.get(
            "/api/v1/datasets",
            self.list_datasets,
            query=PageQuery,
            answers={200: Page[DatasetView]},
            tagged=True,
        )

    async def post(self, request: web.Request) -> web.Response:
        """Record events; answer once they are durable.

        202 with their ids; 200 when all of them had been posted before under the same ids.
        """
        query(request, NoQuery)
        posted = await body(request, _decoder)
        events = posted if isinstance(posted, list) else [posted]
        return await record(self._call(events, request), self._calls)

    def _call(self, events: list[PostedEvent], request: web.Request) -> PostEvents:
        check_count(len(events), self._max_events)
        check_numbers([event.extra for event in events])
        whole = request.headers.get("Idempotency-Key")
        who = asker(request)
        if whole is not None and who.datasets is not None:
            whole = f"{who.name}\n{whole}"  # whoever is limited takes nobody else's key
        news, keys = [], []
        for index, event in enumerate(events):
            uri = _uri(event, index)
            news.append(
                NewEvent(
                    uri,
                    event.extra,
                    event.partition,
                    utc(event.time, field="time", index=index),
                    event.id,
                )
            )
            keys.append(_key(uri, event.id, whole, index))
        check_datasets(request, (event.dataset for event in news))
        return PostEvents(tuple(news), tuple(keys), _source(request))

    async def list_events(self, request: web.Request) -> web.Response:
        """List events, the newest first."""
        asked = query(request, EventsQuery)
        dataset = None
        if asked.dataset is not None:
            try:
                dataset = normalise_uri(asked.dataset)
            except DefinitionError as error:
                raise BadRequest(str(error), status=400, field="dataset") from error
        datasets = self._reading.datasets
        after = opened(_EVENTS, asked.after, Number)
        if asked.event is not None:
            return tagged(request, Page([await datasets.event_fate(asked.event)]))
        read = datasets.event_fates if asked.fate else datasets.events
        page = await read(limit=asked.limit, dataset=dataset, after=after)
        return tagged(request, sealed(_EVENTS, page))

    async def list_datasets(self, request: web.Request) -> web.Response:
        """List datasets by URI."""
        asked = query(request, PageQuery)
        after = opened(_DATASETS, asked.after, str)
        page = await self._reading.datasets.page(limit=asked.limit, after=after)
        return tagged(request, sealed(_DATASETS, page))


def _uri(event: PostedEvent, index: int) -> str:
    try:
        return normalise_uri(event.dataset)
    except DefinitionError as error:
        raise BadRequest(str(error), index=index, field="dataset") from error


def _key(uri: str, event_id: str | None, whole: str | None, index: int) -> str | None:
    """Return the key under which the same event is known again, short whatever it stands for.

    An id is its sender's, who knows of one dataset; so the same id of another dataset is another
    event.
    """
    if event_id is not None:
        text = f"id\n{uri}\n{event_id}"
    elif whole is not None:
        text = f"request\n{whole}\n{index}"
    else:
        return None
    # A header's bytes may be no UTF-8.
    return blake2b(text.encode(errors="surrogateescape"), digest_size=20).hexdigest()


def _source(request: web.Request) -> str:
    named = request.headers.get("Pubsubflow-Source", "api")
    return named if named in _SOURCES else "api"
