"""What is served: a route says who may ask, what is asked with and what comes back."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Any, Protocol
from uuid import UUID

from aiohttp import web
from msgspec import Meta, Struct

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Access(StrEnum):
    """Who may ask: nobody in particular, or somebody whose token has at least this role.

    `OPEN` asks for no token; what proves who asks may stand in the request itself, as a webhook's
    signature does.
    """

    OPEN = "open"
    VIEWER = "viewer"
    EMITTER = "emitter"
    OPERATOR = "operator"
    ADMIN = "admin"


class Media(Struct, frozen=True):
    """A body that is no single value in JSON.

    Attributes:
        types: Media types, such as `text/event-stream`.
        about: What it holds, for people.
        item: Type of one line or event of it, where each is JSON.
    """

    types: tuple[str, ...]
    about: str
    item: Any = None


NAMES: Mapping[str, Any] = {
    "dag_id": Annotated[str, Meta(min_length=1, description="Id of the DAG.")],
    "run_id": Annotated[UUID, Meta(description="Id of the run.")],
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
"""Types of what stands in paths, by its name there."""


class Route(Struct, frozen=True, kw_only=True):
    """One thing that is served.

    What it declares is what the OpenAPI document says; see `pubsubflow.api.http.openapi` for what
    follows from it.

    Attributes:
        method: HTTP method.
        path: With parameters in braces, as aiohttp's.
        handler: Answers; the first line of its docstring says what the route does.
        access: Who may ask.
        query: Type of the query string; None for none.
        body: Type of the body in JSON; None for none; a Media for a body of another kind.
        body_needed: Whether there must be one.
        answers: Type of the answer's body by status, besides problem documents; None for no body,
            a Media for one of another kind, a tuple where it may have several types.
        problems: Statuses of problem documents besides those that every such route may give.
        headers: Headers of the request that count here: name → what they say.
        names: Types of what stands in the path, besides those of `NAMES`.
        tagged: Whether the answer has an ETag and `If-None-Match` counts; see `etags.tagged`.
        matched: Whether `If-Match` counts; see `etags.wanted`.
        allow_head: Whether a GET route also answers HEAD.
        intake: Whether it brings events, and has to wait while too many are on their way.
    """

    method: str
    path: str
    handler: Handler
    access: Access
    query: type[Any] | None = None
    body: Any = None
    body_needed: bool = True
    answers: Mapping[int, Any] = {}
    problems: tuple[int, ...] = ()
    headers: Mapping[str, str] = {}
    names: Mapping[str, Any] = {}
    tagged: bool = False
    matched: bool = False
    allow_head: bool = True
    intake: bool = False

    def served(self) -> web.RouteDef:
        """Return the route as aiohttp takes it."""
        if self.method == "GET":
            return web.get(self.path, self.handler, allow_head=self.allow_head)
        return web.route(self.method, self.path, self.handler)


class Routed(Protocol):
    """A part of the API."""

    def routes(self) -> Iterable[Route]:
        """Return what is served."""


def get(path: str, handler: Handler, *, access: Access = Access.VIEWER, **told: Any) -> Route:
    """Return a route that shows something."""
    return Route(method="GET", path=path, handler=handler, access=access, **told)


def post(path: str, handler: Handler, *, access: Access, **told: Any) -> Route:
    """Return a route that does something."""
    return Route(method="POST", path=path, handler=handler, access=access, **told)
