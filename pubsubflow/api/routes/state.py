"""Routes of the state of DAGs: show, set and reset values."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import json_with_etag
from pubsubflow.api.http.pagination import page_by_name, read_cursor
from pubsubflow.api.http.requests import NoQuery, PageQuery, parse_body, parse_query
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.errors import NotFound
from pubsubflow.model.api.resources import Page
from pubsubflow.model.api.state import StateView
from pubsubflow.model.values.state import MAX_NAME_CHARACTERS, check_state_name, encode_state
from pubsubflow.store.values.state import StateStore

_PATH = "/api/v1/dags/{dag_id}/state"
Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARACTERS)]


class StateQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of a DAG's state.

    Attributes:
        name: This value alone.
    """

    name: Name | None = None


class ResetQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of a request to reset a value.

    Attributes:
        name: Its name, or the URI of a dataset.
    """

    name: Name


class SetStateRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to set a value of a DAG's state.

    Attributes:
        name: Its name, or the URI of a dataset.
        value: A JSON value of at most 16 KiB.
    """

    name: Name
    value: Any


_decoder = msgspec.json.Decoder(SetStateRequest)


class StateRoutes:
    """Handlers of `/api/v1/dags/{dag_id}/state`.

    Args:
        store: The state of the DAGs.
    """

    def __init__(self, store: StateStore) -> None:
        self._store = store

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        yield routing.get(
            _PATH,
            self.show,
            query=StateQuery,
            responses={200: Page[StateView]},
            problems=(422,),
            etag=True,
        )
        yield Route(
            method="PUT",
            path=_PATH,
            handler=self.put,
            access=Access.OPERATOR,
            query=NoQuery,
            body=SetStateRequest,
            responses={200: StateView},
        )
        yield Route(
            method="DELETE",
            path=_PATH,
            handler=self.reset,
            access=Access.OPERATOR,
            query=ResetQuery,
            responses={204: None},
            problems=(422,),
        )

    async def show(self, request: web.Request) -> web.Response:
        """List the values that a DAG keeps from run to run."""
        params = parse_query(request, StateQuery)
        dag_id = request.match_info["dag_id"]
        if params.name is not None:
            check_state_name(params.name)
        after = read_cursor(f"state {dag_id}", params.after, str) or ""
        found = await self._store.list(dag_id, after, params.limit + 1, params.name)
        return json_with_etag(request, page_by_name(f"state {dag_id}", found, params.limit))

    async def put(self, request: web.Request) -> web.Response:
        """Set a value of a DAG's state; return it."""
        payload = await parse_body(request, _decoder)
        dag_id = request.match_info["dag_id"]
        await self._store.set(dag_id, payload.name, encode_state(payload.value))
        found = await self._store.list(dag_id, "", 1, payload.name)
        if not found:
            raise NotFound("value in the state", payload.name)
        return json_response(found[0])

    async def reset(self, request: web.Request) -> web.Response:
        """Reset a value of a DAG's state."""
        name = parse_query(request, ResetQuery).name
        await self._store.set(request.match_info["dag_id"], name, None)
        return web.Response(status=HTTPStatus.NO_CONTENT)
