"""Routes of pools and rate limits: list, show, set and remove."""

from collections.abc import Iterable
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import expected_revisions, json_with_etag
from pubsubflow.api.http.pagination import read_cursor, with_cursor
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import NoQuery, PageQuery, parse_body, parse_query
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.model.api.resources import Page, PoolView, RateLimitView
from pubsubflow.model.wire.commands import CommandHandler, DeletePool, SetPool
from pubsubflow.store.read.read_models import ReadModels

MAX_NAME_CHARACTERS = 250
MAX_SLOTS = 1_000_000
_LIST, _RATES = "pools", "rate-limits"
_NAMES = {
    "pool": Annotated[
        str, Meta(min_length=1, max_length=MAX_NAME_CHARACTERS, description="Name of the pool.")
    ]
}


class PoolUpdate(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to set the limit of a pool.

    Attributes:
        slots: How many of its tasks may run at once; with 0 none starts.
    """

    slots: Annotated[int, Meta(ge=0, le=MAX_SLOTS)]


_slots = msgspec.json.Decoder(PoolUpdate)


class PoolRoutes:
    """Handlers of `/api/v1/pools`."""

    def __init__(self, commands: CommandHandler, read_models: ReadModels) -> None:
        self._commands = commands
        self._read_models = read_models

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        path = "/api/v1/pools/{pool}"
        yield routing.get(
            "/api/v1/rate-limits",
            self.list_rate_limits,
            query=PageQuery,
            responses={200: Page[RateLimitView]},
        )
        yield routing.get(
            "/api/v1/pools",
            self.list_pools,
            query=PageQuery,
            responses={200: Page[PoolView]},
            etag=True,
        )
        yield routing.get(
            path,
            self.show,
            query=NoQuery,
            responses={200: PoolView},
            etag=True,
            names=_NAMES,
            problems=(422,),
        )
        yield Route(
            method="PUT",
            path=path,
            handler=self.set,
            access=Access.OPERATOR,
            query=NoQuery,
            if_match=True,
            body=PoolUpdate,
            responses={200: PoolView},
            names=_NAMES,
        )
        yield Route(
            method="DELETE",
            path=path,
            handler=self.remove,
            access=Access.OPERATOR,
            query=NoQuery,
            if_match=True,
            responses={204: None},
            names=_NAMES,
            problems=(422,),
        )

    async def list_pools(self, request: web.Request) -> web.Response:
        """List pools by name, also those that only tasks name."""
        params = parse_query(request, PageQuery)
        after = read_cursor(_LIST, params.after, str)
        page = await self._read_models.pools.page(limit=params.limit, after=after)
        return json_with_etag(request, with_cursor(_LIST, page))

    async def list_rate_limits(self, request: web.Request) -> web.Response:
        """List rate limits by name, with the tasks that wait for them."""
        params = parse_query(request, PageQuery)
        after = read_cursor(_RATES, params.after, str)
        page = await self._read_models.pools.rate_limits(limit=params.limit, after=after)
        return json_response(with_cursor(_RATES, page))

    async def show(self, request: web.Request) -> web.Response:
        """Show a pool."""
        found = await self._read_models.pools.get(_name(request))
        return json_with_etag(request, found, revision=found.revision)

    async def set(self, request: web.Request) -> web.Response:
        """Set how many tasks of a pool may run at once; with more slots, waiting tasks start."""
        name, payload = _name(request), await parse_body(request, _slots)
        await self._commands.execute(SetPool(name, payload.slots, expected_revisions(request)))
        return json_response(await self._read_models.pools.get(name))

    async def remove(self, request: web.Request) -> web.Response:
        """Remove a pool's limit; tasks that name it are then unlimited."""
        await self._commands.execute(DeletePool(_name(request), expected_revisions(request)))
        return web.Response(status=204)


def _name(request: web.Request) -> str:
    name = request.match_info["pool"]
    if len(name) > MAX_NAME_CHARACTERS or "\x00" in name or not name.strip():
        raise BadRequest(
            f"a pool's name has 1 to {MAX_NAME_CHARACTERS} characters and no NUL", status=422
        )
    return name
