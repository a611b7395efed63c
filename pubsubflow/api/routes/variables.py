"""Routes of variables: list, show, set and delete; secret values are written and never returned."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from aiohttp import web
from msgspec import Struct

from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import expected_revisions, json_with_etag
from pubsubflow.api.http.pagination import page_by_name, read_cursor
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import NoQuery, PageQuery, parse_body, parse_query
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.bus import Bus
from pubsubflow.errors import ConfigError
from pubsubflow.model.api.resources import Page
from pubsubflow.model.api.variables import VariableView
from pubsubflow.model.values.variables import make_variable
from pubsubflow.store.secrets.variables import Variables
from pubsubflow.wakeup import announce_variable

log = structlog.get_logger(__name__)

_LIST = "variables"
_ROOT = "/api/v1/variables"
_ONE = f"{_ROOT}/{{name}}"


class SetVariableRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to set a variable, whole.

    Attributes:
        value: A JSON value; `***` keeps the stored value of a secret one.
        secret: Whether it is stored encrypted and never shown; as its name says when left out.
        description: For people.
    """

    value: Any
    secret: bool | None = None
    description: str | None = None


_decoder = msgspec.json.Decoder(SetVariableRequest)


class VariableRoutes:
    """Handlers of `/api/v1/variables`.

    Args:
        store: The variables.
        bus: Announces changes.
    """

    def __init__(self, store: Variables, bus: Bus) -> None:
        self._store = store
        self._bus = bus

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        operator, admin = Access.OPERATOR, Access.ADMIN
        yield routing.get(
            _ROOT,
            self.list_variables,
            access=operator,
            query=PageQuery,
            responses={200: Page[VariableView]},
            etag=True,
        )
        yield routing.get(
            _ONE,
            self.show,
            access=operator,
            query=NoQuery,
            responses={200: VariableView},
            etag=True,
        )
        yield Route(
            method="PUT",
            path=_ONE,
            handler=self.put,
            access=admin,
            query=NoQuery,
            body=SetVariableRequest,
            responses={200: VariableView, 201: VariableView},
            problems=(409,),
            headers={"If-None-Match": "`*` creates a variable and replaces none."},
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

    async def list_variables(self, request: web.Request) -> web.Response:
        """List variables by name, with masks for secret values."""
        params = parse_query(request, PageQuery)
        after = read_cursor(_LIST, params.after, str) or ""
        found = await self._store.list(after, params.limit + 1)
        return json_with_etag(request, page_by_name(_LIST, found, params.limit))

    async def show(self, request: web.Request) -> web.Response:
        """Show a variable, with a mask for a secret value."""
        found = await self._store.view(request.match_info["name"])
        return json_with_etag(request, found, revision=found.revision)

    async def put(self, request: web.Request) -> web.Response:
        """Set a variable in place of the one that has its name."""
        payload = await parse_body(request, _decoder)
        made = make_variable(
            request.match_info["name"],
            payload.value,
            secret=payload.secret,
            description=payload.description,
        )
        revisions = expected_revisions(request, may_create=True)
        try:
            saved = await self._store.save(made, revisions)
        except ConfigError as error:
            log.warning("variables.change_refused", reason=str(error))
            raise BadRequest(str(error), status=HTTPStatus.CONFLICT) from error
        announce_variable(self._bus, made.name)
        return json_response(saved.view, HTTPStatus.CREATED if saved.created else HTTPStatus.OK)

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a variable."""
        name = request.match_info["name"]
        await self._store.delete(name, expected_revisions(request))
        announce_variable(self._bus, name)
        return web.Response(status=HTTPStatus.NO_CONTENT)
