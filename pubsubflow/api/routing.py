"""What is served: a route says who may ask, what is asked with and what comes back."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, Protocol

from aiohttp import web
from msgspec import Struct

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


class Route(Struct, frozen=True, kw_only=True):
    """One thing that is served.

    Attributes:
        method: HTTP method.
        path: With parameters in braces, as aiohttp's.
        handler: Answers; the first line of its docstring says what the route does.
        access: Who may ask.
        query: Type of the query string; None for none.
        body: Type of the body in JSON; None for none, or for a body of another kind.
        answers: Type of the answer's body by status, besides problem documents; None for no body
            or one of another kind.
        allow_head: Whether a GET route also answers HEAD.
    """

    method: str
    path: str
    handler: Handler
    access: Access
    query: type[Any] | None = None
    body: Any = None
    answers: Mapping[int, Any] = {}
    allow_head: bool = True

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
