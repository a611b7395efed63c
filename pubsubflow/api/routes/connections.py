"""Connections: listed, shown, set, deleted; their secrets come in and never go out."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from aiohttp import web
from msgspec import Struct

from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import tagged, wanted
from pubsubflow.api.http.pagination import opened, sealed
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import NoQuery, PageQuery, body, query
from pubsubflow.api.http.responses import answer
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.bus import Bus
from pubsubflow.errors import BusUnavailable, ConfigError
from pubsubflow.model.api.connections import ConnectionView, RotatedKeys
from pubsubflow.model.api.resources import Page
from pubsubflow.model.connections import make_connection
from pubsubflow.model.revisions import connection_revision
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.secrets.connections import Connections

log = structlog.get_logger(__name__)

_LIST = "connections"
_ROOT = "/api/v1/connections"
_ONE = f"{_ROOT}/{{name}}"


class AskedConnection(Struct, frozen=True, forbid_unknown_fields=True):
    """A connection as it is to be, whole.

    Attributes:
        kind: What it is, such as `postgres`; the scheme of `uri` when left out.
        uri: Where it is; a password in it becomes the secret `password`.
        extra: Further facts, none of them secret.
        secrets: Field → value; `***` keeps the value that is stored.
    """

    kind: str | None = None
    uri: str | None = None
    extra: dict[str, Any] = {}
    secrets: dict[str, str] = {}


_decoder = msgspec.json.Decoder(AskedConnection)


class ConnectionRoutes:
    """Handlers of `/api/v1/connections`.

    Args:
        store: The connections.
        bus: Tells those who use one that it has changed.
    """

    def __init__(self, store: Connections, bus: Bus) -> None:
        self._store = store
        self._bus = bus

    def routes(self) -> Iterable[Route]:
        """Return what is served."""
        operator, admin = Access.OPERATOR, Access.ADMIN
        yield routing.get(
            _ROOT,
            self.list_connections,
            access=operator,
            query=PageQuery,
            answers={200: Page[ConnectionView]},
            tagged=True,
        )
        yield routing.get(
            _ONE,
            self.show,
            access=operator,
            query=NoQuery,
            answers={200: ConnectionView},
            tagged=True,
        )
        yield Route(
            method="PUT",
            path=_ONE,
            handler=self.put,
            access=admin,
            query=NoQuery,
            body=AskedConnection,
            answers={200: ConnectionView, 201: ConnectionView},
            problems=(409,),
            headers={"If-None-Match": "`*` makes a connection and changes none."},
            matched=True,
        )
        yield Route(
            method="DELETE",
            path=_ONE,
            handler=self.delete,
            access=admin,
            query=NoQuery,
            answers={204: None},
            matched=True,
        )
        yield routing.post(
            f"{_ROOT}/rotate",
            self.rotate,
            access=admin,
            query=NoQuery,
            answers={200: RotatedKeys},
            problems=(409,),
        )

    async def list_connections(self, request: web.Request) -> web.Response:
        """List connections by name, with masks for their secrets."""
        asked = query(request, PageQuery)
        after = opened(_LIST, asked.after, str) or ""
        found = await self._store.list(after, asked.limit + 1)
        items = found[: asked.limit]
        page = Page(items, items[-1].name if len(found) > asked.limit else None)
        return tagged(request, sealed(_LIST, page))

    async def show(self, request: web.Request) -> web.Response:
        """Show a connection, with masks for its secrets."""
        query(request, NoQuery)
        found = await self._store.view(request.match_info["name"])
        return tagged(request, found, revision=found.revision)

    async def put(self, request: web.Request) -> web.Response:
        """Set a connection in place of the one that has its name."""
        query(request, NoQuery)
        asked = await body(request, _decoder)
        made = make_connection(
            request.match_info["name"],
            kind=asked.kind,
            uri=asked.uri,
            extra=asked.extra,
            secrets=asked.secrets,
        )
        revisions = wanted(request)
        if request.headers.get("If-None-Match", "").strip() == "*":
            revisions = [connection_revision(None)]
        async with self._changing():
            saved = await self._store.save(made, revisions)
        return answer(saved.view, HTTPStatus.CREATED if saved.created else HTTPStatus.OK)

    async def delete(self, request: web.Request) -> web.Response:
        """Forget a connection."""
        query(request, NoQuery)
        async with self._changing():
            await self._store.delete(request.match_info["name"], wanted(request))
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def rotate(self, request: web.Request) -> web.Response:
        """Encrypt all secrets with a new key, and drop the keys before."""
        query(request, NoQuery)
        async with self._changing():
            done = await self._store.rotate()
        return answer(done)

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[None]:
        """Tell of a change; answer one that cannot be by what is in its way."""
        try:
            yield
        except ConfigError as error:
            log.warning("connections.refused", reason=str(error))
            raise BadRequest(str(error), status=HTTPStatus.CONFLICT) from error
        try:
            self._bus.publish(Subjects.CONNECTIONS_CHANGED, b"")
        except BusUnavailable as error:  # who uses it will find out by looking
            log.warning("connections.change_untold", reason=str(error))
