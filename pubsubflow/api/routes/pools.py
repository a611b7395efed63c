"""Pools: listed, set, removed."""

from collections.abc import Iterable
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import tagged, wanted
from pubsubflow.api.http.pagination import opened, sealed
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import NoQuery, PageQuery, body, query
from pubsubflow.api.http.responses import answer
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.model.api.resources import Page, PoolView
from pubsubflow.model.wire.commands import Calls, RemovePool, SetPool
from pubsubflow.store.read.read_models import Reading

MAX_NAME_CHARACTERS = 250
MAX_SLOTS = 1_000_000
_LIST = "pools"
_NAMES = {
    "pool": Annotated[
        str, Meta(min_length=1, max_length=MAX_NAME_CHARACTERS, description="Name of the pool.")
    ]
}


class PoolSlots(Struct, frozen=True, forbid_unknown_fields=True):
    """How many tasks of a pool may run at once.

    Attributes:
        slots: 0 lets none start.
    """

    slots: Annotated[int, Meta(ge=0, le=MAX_SLOTS)]


_slots = msgspec.json.Decoder(PoolSlots)


class Pools:
    """Handlers of `/api/v1/pools`."""

    def __init__(self, calls: Calls, reading: Reading) -> None:
        self._calls = calls
        self._reading = reading

    def routes(self) -> Iterable[Route]:
        """Return what is served."""
        path = "/api/v1/pools/{pool}"
        yield routing.get(
            "/api/v1/pools",
            self.list_pools,
            query=PageQuery,
            answers={200: Page[PoolView]},
            tagged=True,
        )
        yield routing.get(
            path,
            self.show,
            query=NoQuery,
            answers={200: PoolView},
            tagged=True,
            names=_NAMES,
            problems=(422,),
        )
        yield Route(
            method="PUT",
            path=path,
            handler=self.set,
            access=Access.OPERATOR,
            query=NoQuery,
            matched=True,
            body=PoolSlots,
            answers={200: PoolView},
            names=_NAMES,
        )
        yield Route(
            method="DELETE",
            path=path,
            handler=self.remove,
            access=Access.OPERATOR,
            query=NoQuery,
            matched=True,
            answers={204: None},
            names=_NAMES,
            problems=(422,),
        )

    async def list_pools(self, request: web.Request) -> web.Response:
        """List pools by name, also those that tasks name and nobody has set."""
        asked = query(request, PageQuery)
        after = opened(_LIST, asked.after, str)
        page = await self._reading.pools.page(limit=asked.limit, after=after)
        return tagged(request, sealed(_LIST, page))

    async def show(self, request: web.Request) -> web.Response:
        """Show a pool."""
        query(request, NoQuery)
        found = await self._reading.pools.get(_name(request))
        return tagged(request, found, revision=found.revision)

    async def set(self, request: web.Request) -> web.Response:
        """Set how many tasks of a pool may run at once; those who wait start at once."""
        query(request, NoQuery)
        name, asked = _name(request), await body(request, _slots)
        await self._calls.call(SetPool(name, asked.slots, wanted(request)))
        return answer(await self._reading.pools.get(name))

    async def remove(self, request: web.Request) -> web.Response:
        """Take a pool's limit away; tasks that still name it have no bound."""
        query(request, NoQuery)
        await self._calls.call(RemovePool(_name(request), wanted(request)))
        return web.Response(status=204)


def _name(request: web.Request) -> str:
    name = request.match_info["pool"]
    if len(name) > MAX_NAME_CHARACTERS or "\x00" in name or not name.strip():
        raise BadRequest(
            f"a pool's name has 1 to {MAX_NAME_CHARACTERS} characters and no NUL", status=422
        )
    return name
