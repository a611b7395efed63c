"""The OpenAPI 3.1 document is generated from the declarations of the routes.

The error responses follow from a declaration: every route may refuse a malformed request (400) or a
page of another site (403), and may be unavailable (503); one with access control requires a token
(401); one with parameters in its path may not find the object (404); one with a body may find it
too slow (408), too large (413), compressed (415) or invalid (422); one that ingests events may
refuse them for a while (429). Every error is a problem document.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Raw

from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import json_with_etag
from pubsubflow.api.http.json_schemas import Schema, describe, parameters_of, text_of
from pubsubflow.api.http.problems import PROBLEM
from pubsubflow.api.http.requests import NoQuery
from pubsubflow.api.http.routing import NAMES, Access, MediaBody, Route, RouteProvider
from pubsubflow.model.api.resources import Problem
from pubsubflow.model.wire.protocol import VERSION

PATH = "/api/v1/openapi.json"
_NAME = re.compile(r"\{(\w+)\}")
_PREFIX = "/api/v1/"
_ROLES = {
    Access.ANY: "Takes a token of any role.",
    Access.VIEWER: "Takes a token of role `viewer` or above.",
    Access.EMITTER: "Takes a token of role `emitter`, for datasets of its own, or `operator`.",
    Access.OPERATOR: "Takes a token of role `operator` or above.",
    Access.ADMIN: "Takes a token of role `admin`.",
}
_RETRYABLE = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_DESCRIPTION = (
    "Lists come in pages: `next` of one is `after` of the following. Errors are problem documents "
    "(RFC 9457). Responses to a GET with the header `Psf-Place` say in it up to which position of "
    "the live stream they are true. Responses have an ETag; for objects that people change, "
    "`If-Match` keeps two writers from overwriting each other's change."
)


class OpenApiRoutes:
    """Handler of `/api/v1/openapi.json`.

    Args:
        parts: The providers of all other routes.
    """

    def __init__(self, parts: Iterable[RouteProvider]) -> None:
        self._parts = (*parts, self)

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        yield routing.get(
            PATH, self.show, query=NoQuery, responses={200: dict[str, Any]}, etag=True
        )

    async def show(self, request: web.Request) -> web.Response:
        """Return this OpenAPI document."""
        return json_with_etag(request, self._document)

    @cached_property
    def _document(self) -> Raw:
        routes = [route for part in self._parts for route in part.routes()]
        return Raw(msgspec.json.encode(document(routes)))


def document(routes: Iterable[Route]) -> Schema:
    """Return the OpenAPI document of routes."""
    writer = _Writer()
    paths: dict[str, Schema] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = writer.operation(route)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "pubsubflow",
            "version": VERSION,
            "description": _DESCRIPTION,
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(writer.components.items())),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def operation_id(route: Route) -> str:
    """Return a route's name, such as `get_runs_by_run_id_tasks`."""
    path = _NAME.sub(r"by_\1", route.path.removeprefix(_PREFIX))
    return f"{route.method.lower()}_" + re.sub(r"\W+", "_", path).strip("_")


def problem_statuses(route: Route) -> list[int]:
    """Return the statuses of the problem documents that a route may respond with."""
    found = {*route.problems, 400, 403, 503}
    if route.access is not Access.OPEN:
        found.add(401)
    if _NAME.search(route.path):
        found.add(404)
    if route.body is not None:
        found |= {408, 413, 415, 422}
    if route.ingests_events:
        found.add(429)
    if route.if_match:
        found.add(412)
    return sorted(found - route.responses.keys())


class _Writer:
    """Writes operations and collects the components to which they refer."""

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}

    def operation(self, route: Route) -> Schema:
        """Return the operation object of a route."""
        summary, _, more = text_of(route.handler).partition("\n")
        role = _ROLES.get(route.access, "")
        written: Schema = {
            "operationId": operation_id(route),
            "tags": [route.path.removeprefix(_PREFIX).strip("/").partition("/")[0]],
            "summary": summary,
            "description": " ".join(f"{more} {role}".split()),
            "parameters": list(self._parameters(route)),
            "responses": self._responses(route),
        }
        if route.access is Access.OPEN:
            written["security"] = []
        if route.body is not None:
            content = self._content(route.body)
            written["requestBody"] = {"required": route.body_required, "content": content}
            if isinstance(route.body, MediaBody):
                written["requestBody"]["description"] = route.body.description
        return written

    def _parameters(self, route: Route) -> Iterator[Schema]:
        for name in _NAME.findall(route.path):
            schema = self._schema({**NAMES, **route.names}[name])
            yield _parameter("path", name, schema, required=True)
        if route.query is not None:
            fields, required, components = parameters_of(route.query)
            self.components |= components
            for name, schema in fields.items():
                yield _parameter("query", name, schema, required=name in required)
        headers = dict(route.headers)
        if route.etag:
            headers["If-None-Match"] = "ETags of the responses that the client has already."
        if route.if_match:
            headers["If-Match"] = "The ETag, or the revision, in quotes, that is to be changed."
        for name, description in headers.items():
            schema = {"type": "string", "description": description}
            yield _parameter("header", name, schema, required=False)

    def _responses(self, route: Route) -> Schema:
        responses = {
            str(status): self._response(status, body, etag=route.etag)
            for status, body in route.responses.items()
        }
        if route.etag:
            responses["304"] = {
                "description": "The client has this response already.",
                "headers": _headers("ETag"),
            }
        problem = {PROBLEM: {"schema": self._schema(Problem)}}
        for status in problem_statuses(route):
            described: Schema = {"description": HTTPStatus(status).phrase, "content": problem}
            if status in _RETRYABLE:
                described["headers"] = _headers("Retry-After")
            responses[str(status)] = described
        return responses

    def _response(self, status: int, body: Any, *, etag: bool) -> Schema:
        described: Schema = {"description": HTTPStatus(status).phrase}
        if isinstance(body, MediaBody):
            described["description"] = body.description
        if body is not None:
            described["content"] = self._content(body)
        if etag:
            described["headers"] = _headers("ETag")
        return described

    def _content(self, body: Any) -> Mapping[str, Schema]:
        if not isinstance(body, MediaBody):
            return {"application/json": {"schema": self._schema(body)}}
        if body.item is not None:
            self._schema(body.item)  # adds it to the components, for clients that read line by line
        return {kind: {} for kind in body.types}

    def _schema(self, kind: Any) -> Schema:
        if isinstance(kind, tuple):
            return {"anyOf": [self._schema(each) for each in kind]}
        (schema,), components = describe([kind])
        for name, component in components.items():
            if self.components.setdefault(name, component) != component:
                raise TypeError(f"two types of the API are named {name}")
        return schema


def _parameter(location: str, name: str, schema: Schema, *, required: bool) -> Schema:
    description = schema.pop("description", None)
    parameter: Schema = {"name": name, "in": location, "required": required, "schema": schema}
    return parameter if description is None else {**parameter, "description": description}


def _headers(name: str) -> Schema:
    return {name: {"schema": {"type": "string"}}}
