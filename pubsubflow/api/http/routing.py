"""Route declarations name a route's access, its parameters, its body and its responses."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Any, Protocol
from uuid import UUID

from aiohttp import web
from msgspec import Meta, Struct

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Access(StrEnum):
    """The access that a route requires: none, or a token of at least this role.

    `OPEN` requires no token; the request may carry a proof of its own, as a webhook's signature is.
    `ANY` requires one, of any role.
    """

    OPEN = "open"
    ANY = "any"
    VIEWER = "viewer"
    EMITTER = "emitter"
    OPERATOR = "operator"
    ADMIN = "admin"


class MediaBody(Struct, frozen=True):
    """A body that is not a single JSON value.

    Attributes:
        types: Media types, such as `text/event-stream`.
        description: Its content, for people.
        item: Type of one line or event, where each is JSON.
    """

    types: tuple[str, ...]
    description: str
    item: Any = None


NAMES: Mapping[str, Any] = {
    "dag_id": Annotated[str, Meta(min_length=1, description="Id of the DAG.")],
    "run_id": Annotated[UUID, Meta(description="Id of the run.")],
    "backfill_id": Annotated[UUID, Meta(description="Id of the backfill.")],
    "task": Annotated[
        str,
        Meta(
            min_length=1,
            description="Id of the task, with `.<map_index>` at its end for an instance of a "
            "mapped one; without a run before it, with `<run_id>.` at its beginning.",
        ),
    ],
    "number": Annotated[int, Meta(ge=1, description="Number, as lists show it.")],
    "name": Annotated[str, Meta(min_length=1, description="Name, as lists show it.")],
}
"""Types of path parameters, by name."""


class Route(Struct, frozen=True, kw_only=True):
    """One operation of the API; the OpenAPI document is generated from these declarations.

    Attributes:
        method: HTTP method.
        path: With parameters in braces, in aiohttp's form.
        handler: Handles requests; the first line of its docstring is the operation's summary.
        access: The access that it requires.
        query: Type of the query string; None for none.
        body: Type of the body in JSON; None for none, a MediaBody for a body of another kind.
        body_required: Whether there must be one.
        responses: Type of the response's body by status, besides problem documents; None for no
            body, a MediaBody for one of another kind, a tuple for one of several types.
        problems: Statuses of problem documents besides those that follow from the declaration.
        headers: Request headers that the handler reads: name → description.
        names: Types of path parameters, besides those of `NAMES`.
        etag: Whether the response has an ETag; see `etags.json_with_etag`.
        if_match: Whether the handler reads `If-Match`; see `etags.expected_revisions`.
        allow_head: Whether a GET route also serves HEAD.
        ingests_events: Whether it takes events in, so that back-pressure and fair shares apply.
        audit_in_command: Whether its audit entry is written with the command that it sends, in
            place of before; see `middleware.execute_audited`.
        only_reads: Whether it changes nothing, though its method is POST; the audit log does not
            keep it.
    """

    method: str
    path: str
    handler: Handler
    access: Access
    query: type[Any] | None = None
    body: Any = None
    body_required: bool = True
    responses: Mapping[int, Any] = {}
    problems: tuple[int, ...] = ()
    headers: Mapping[str, str] = {}
    names: Mapping[str, Any] = {}
    etag: bool = False
    if_match: bool = False
    allow_head: bool = True
    ingests_events: bool = False
    audit_in_command: bool = False
    only_reads: bool = False

    def definition(self) -> web.RouteDef:
        """Return the route in aiohttp's form."""
        if self.method == "GET":
            return web.get(self.path, self.handler, allow_head=self.allow_head)
        return web.route(self.method, self.path, self.handler)


class RouteProvider(Protocol):
    """A part of the API: the handlers of one resource."""

    def routes(self) -> Iterable[Route]:
        """Return the routes."""


def get(path: str, handler: Handler, *, access: Access = Access.VIEWER, **declared: Any) -> Route:
    """Return a GET route."""
    return Route(method="GET", path=path, handler=handler, access=access, **declared)


def post(path: str, handler: Handler, *, access: Access, **declared: Any) -> Route:
    """Return a POST route."""
    return Route(method="POST", path=path, handler=handler, access=access, **declared)
