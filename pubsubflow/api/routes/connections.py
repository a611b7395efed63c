"""Routes of connections: secrets are written, and returned by the export of an admin alone."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated, Any

import anyio
import msgspec
import structlog
from aiohttp import web
from msgspec import Meta, Struct
from msgspec.structs import replace

from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import expected_revisions, json_with_etag
from pubsubflow.api.http.pagination import page_by_name, read_cursor
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import (
    NoQuery,
    PageQuery,
    decode_body,
    parse_body,
    parse_query,
)
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.bus import Bus
from pubsubflow.child_calls.catalogue import PluginCatalogue
from pubsubflow.child_calls.connection_trial import try_connection
from pubsubflow.errors import BusUnavailable, ConfigError, InvalidInput, NotFound
from pubsubflow.model.api.connection_types import CONNECTION_TYPES, ConnectionType, check_type
from pubsubflow.model.api.connections import (
    ConnectionTestView,
    ConnectionView,
    ExportedConnections,
    RotatedKeys,
)
from pubsubflow.model.api.resources import Page
from pubsubflow.model.connections import Connection, make_connection
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.secrets.connections import Connections

log = structlog.get_logger(__name__)

_LIST = "connections"
_ROOT = "/api/v1/connections"
_ONE = f"{_ROOT}/{{name}}"


class SetConnectionRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to set a connection, whole.

    Attributes:
        kind: Its kind, such as `postgres`; the scheme of `uri` when left out.
        uri: Its URI; a password in it becomes the secret `password`.
        extra: Further fields, none of them secret.
        secrets: Field → value; `***` keeps the value that is stored.
        type: Its type, in place of `kind`: it is checked against the type's fields.
        dags: Ids of the DAGs that may use it, and patterns such as `etl_*`; empty for all, and
            those that are stored if left out.
    """

    kind: str | None = None
    uri: str | None = None
    extra: dict[str, Any] = {}
    secrets: dict[str, str] = {}
    type: str | None = None
    dags: list[str] | None = None


class ConnectionTestRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to test a connection.

    Attributes:
        seconds: The time limit.
    """

    seconds: Annotated[float, Meta(gt=0, le=60)] = 10.0


_decoder = msgspec.json.Decoder(SetConnectionRequest)
_test_decoder = msgspec.json.Decoder(ConnectionTestRequest)
_TESTS_AT_ONCE = 4
# What the scheme of a URI makes the kind of, in the words of the types.
_TYPE_OF_KIND = {"https": "http", "postgresql": "postgres", "smtps": "smtp", "unix": "docker"}


class ConnectionRoutes:
    """Handlers of `/api/v1/connections`.

    Args:
        store: The stored connections.
        bus: Announces changes.
        catalogue: Knows the types of connections.
    """

    def __init__(
        self, store: Connections, bus: Bus, catalogue: PluginCatalogue | None = None
    ) -> None:
        self._store = store
        self._bus = bus
        self._catalogue = catalogue or PluginCatalogue()
        # Each test is a process, and an operator may ask for as many as there are connections.
        self._tests = anyio.CapacityLimiter(_TESTS_AT_ONCE)

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        operator, admin = Access.OPERATOR, Access.ADMIN
        yield routing.get(
            _ROOT,
            self.list_connections,
            access=operator,
            query=PageQuery,
            responses={200: Page[ConnectionView]},
            etag=True,
        )
        yield routing.get(
            _ONE,
            self.show,
            access=operator,
            query=NoQuery,
            responses={200: ConnectionView},
            etag=True,
        )
        yield Route(
            method="PUT",
            path=_ONE,
            handler=self.put,
            access=admin,
            query=NoQuery,
            body=SetConnectionRequest,
            responses={200: ConnectionView, 201: ConnectionView},
            problems=(409,),
            headers={"If-None-Match": "`*` creates a connection and replaces none."},
            if_match=True,
        )
        yield Route(
            method="DELETE",
            path=_ONE,
            handler=self.delete,
            access=admin,
            query=NoQuery,
            responses={204: None},
            if_match=True,
        )
        yield routing.post(
            f"{_ONE}/test",
            self.test,
            access=operator,
            query=NoQuery,
            body=ConnectionTestRequest,
            body_required=False,
            responses={200: ConnectionTestView},
            problems=(409,),
        )
        yield routing.post(
            f"{_ROOT}/rotate",
            self.rotate,
            access=admin,
            query=NoQuery,
            responses={200: RotatedKeys},
            problems=(409,),
        )

        # Not GET: who has read the secrets stands in the audit log, as whoever changes something.
        yield routing.post(
            f"{_ROOT}/export",
            self.export,
            access=admin,
            query=NoQuery,
            responses={200: ExportedConnections},
            problems=(409,),
        )

    async def list_connections(self, request: web.Request) -> web.Response:
        """List connections by name, with masks for their secrets."""
        params = parse_query(request, PageQuery)
        after = read_cursor(_LIST, params.after, str) or ""
        found = await self._store.list(after, params.limit + 1)
        return json_with_etag(request, page_by_name(_LIST, found, params.limit))

    async def show(self, request: web.Request) -> web.Response:
        """Show a connection, with masks for its secrets."""
        found = await self._store.view(request.match_info["name"])
        return json_with_etag(request, found, revision=found.revision)

    async def put(self, request: web.Request) -> web.Response:
        """Set a connection in place of the one that has its name."""
        payload = await parse_body(request, _decoder)
        made = make_connection(
            request.match_info["name"],
            kind=payload.type or payload.kind,
            uri=payload.uri,
            extra=payload.extra,
            secrets=payload.secrets,
            dags=payload.dags or (),
        )
        if payload.type is not None:
            check_type(made, await self._type(payload.type))
        revisions = expected_revisions(request, may_create=True)
        async with self._changing():
            saved = await self._store.save(made, revisions, keep_dags=payload.dags is None)
        return json_response(saved.view, HTTPStatus.CREATED if saved.created else HTTPStatus.OK)

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a connection."""
        async with self._changing():
            await self._store.delete(request.match_info["name"], expected_revisions(request))
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def test(self, request: web.Request) -> web.Response:
        """Try a connection by the check of its type, in a process of its own."""
        wanted = decode_body(await request.read() or b"{}", _test_decoder)
        try:
            found = await self._store.read(request.match_info["name"])
        except ConfigError as error:
            raise BadRequest(str(error), status=HTTPStatus.CONFLICT) from error
        declared = await self._type_of(found)
        async with self._tests:
            account = self._catalogue.account
            return json_response(await try_connection(found, declared, wanted.seconds, account))

    async def _type(self, name: str) -> ConnectionType:
        """Return a type that a request names.

        Raises:
            InvalidInput: There is none.
        """
        try:
            return await self._catalogue.type(name)
        except NotFound as error:
            known = ", ".join(each.name for each in await self._catalogue.types())
            raise InvalidInput(f"{error}: types are {known}") from error

    async def _type_of(self, connection: Connection) -> ConnectionType:
        """Return the type of a stored connection: what its kind names, else a generic one."""
        kind = _TYPE_OF_KIND.get(connection.kind, connection.kind)
        try:
            declared = await self._catalogue.type(kind)
        except NotFound:
            return CONNECTION_TYPES["generic"]
        # It may be older than types are, and have further fields.
        return replace(declared, open=True)

    async def rotate(self, _: web.Request) -> web.Response:
        """Encrypt all secrets with a new key, and delete the old keys."""
        async with self._changing():
            done = await self._store.rotate()
        return json_response(done)

    async def export(self, _: web.Request) -> web.Response:
        """Return all stored connections with their secrets."""
        try:
            found = await self._store.export()
        except ConfigError as error:
            raise BadRequest(str(error), status=HTTPStatus.CONFLICT) from error
        return json_response(found)

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[None]:
        """Announce the change of the block; turn one that is impossible into a conflict."""
        try:
            yield
        except ConfigError as error:
            log.warning("connections.change_refused", reason=str(error))
            raise BadRequest(str(error), status=HTTPStatus.CONFLICT) from error
        try:
            self._bus.publish(Subjects.CONNECTIONS_CHANGED, b"")
        except BusUnavailable as error:
            # The change is stored; caches elsewhere find it by their sweep.
            log.warning("connections.announce_failed", reason=str(error))
