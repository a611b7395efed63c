"""Routes of the system, and of neighbourhoods of datasets."""

from collections.abc import Iterable, Mapping
from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.auth.scopes import check_dataset
from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import json_with_etag
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import NoQuery, parse_query
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Route
from pubsubflow.api.http.shown import rights_of_request
from pubsubflow.bus import Bus
from pubsubflow.errors import BusUnavailable, ConfigError, DefinitionError
from pubsubflow.model.api.overviews.graph import DatasetGraph
from pubsubflow.model.api.overviews.system import ConsumerLagView, SystemView
from pubsubflow.model.datasets import normalise_uri
from pubsubflow.store.read.read_models import ReadModels

_Steps = Annotated[int, Meta(ge=0, le=20)]


class GraphQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of a graph.

    Attributes:
        around: URI of the dataset in the middle.
        up: How many DAGs far to go towards what leads to it.
        down: How many DAGs far to go towards what follows.
        limit: How many datasets and DAGs at most; the nearest are kept.
    """

    around: Annotated[str, Meta(min_length=1, max_length=2048)]
    up: _Steps = 2
    down: _Steps = 2
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200


class SystemRoutes:
    """Handlers of `/api/v1/system` and `/api/v1/graph`.

    Args:
        read_models: Reads what is shown.
        bus: Knows how far the consumers of its streams are behind.
        retention: The settings of retention.
    """

    def __init__(self, read_models: ReadModels, bus: Bus, retention: Mapping[str, float]) -> None:
        self._read_models = read_models
        self._bus = bus
        self._retention = retention

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        yield routing.get("/api/v1/system", self.system, query=NoQuery, responses={200: SystemView})
        yield routing.get(
            "/api/v1/graph",
            self.graph,
            query=GraphQuery,
            responses={200: DatasetGraph},
            problems=(404,),
            etag=True,
        )

    async def system(self, _: web.Request) -> web.Response:
        """Show what the system stores, how far behind it is, and who does what."""
        stored = await self._read_models.system.read()
        trouble = None
        try:
            consumers = await self._bus.list_consumer_stats()
        except (BusUnavailable, ConfigError) as error:
            # What the database knows helps all the more then.
            consumers, trouble = [], f"NATS does not say how far its consumers are: {error}"
        found = SystemView(
            database=stored.database,
            slices=stored.slices,
            consumers=[
                ConsumerLagView(
                    stream=each.stream,
                    consumer=each.consumer,
                    waiting=each.waiting,
                    unacknowledged=each.unacknowledged,
                    oldest_seconds=each.oldest_seconds,
                )
                for each in consumers
            ],
            triggerers=stored.triggerers,
            leases=stored.leases,
            retention=dict(self._retention),
            trouble=trouble,
        )
        return json_response(found)

    async def graph(self, request: web.Request) -> web.Response:
        """Show a dataset with the DAGs and datasets that lead to it and that follow."""
        params = parse_query(request, GraphQuery)
        try:
            uri = normalise_uri(params.around)
        except DefinitionError as error:
            raise BadRequest(str(error), status=400, field="around") from error
        check_dataset(rights_of_request(), uri)
        found = await self._read_models.neighbours.around(
            uri, up=params.up, down=params.down, limit=params.limit
        )
        return json_with_etag(request, found)
