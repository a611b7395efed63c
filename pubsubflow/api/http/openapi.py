"""The OpenAPI 3.1 document, made of what the routes declare.

What follows from a declaration: every route may refuse a malformed request (400), a page of another
site (403) and may be unable to answer now (503); one that asks for a token, without one (401); one
with names in its path may not find what they name (404); one with a body may find it too slow
(408), too large (413), compressed (415) or unfit (422); one that brings events may ask for them
later (429). Whatever is no success is a problem document.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Raw

from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import tagged
from pubsubflow.api.http.json_schemas import Schema, describe, parameters_of, text_of
from pubsubflow.api.http.problems import PROBLEM
from pubsubflow.api.http.requests import NoQuery, query
from pubsubflow.api.http.routing import NAMES, Access, Media, Route, Routed
from pubsubflow.model.api.resources import Problem

PATH = "/api/v1/openapi.json"
_NAME = re.compile(r"\{(\w+)\}")
_PREFIX = "/api/v1/"
_ROLES = {
    Access.VIEWER: "Takes a token of role `viewer` or above.",
    Access.EMITTER: "Takes a token of role `emitter`, for datasets of its own, or `operator`.",
    Access.OPERATOR: "Takes a token of role `operator` or above.",
    Access.ADMIN: "Takes a token of role `admin`.",
}
_LATER = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_ABOUT = (
    "Lists come in pages: `next` of one is `after` of the following. Errors are problem documents "
    "(RFC 9457). What is shown has an ETag; where people change things, `If-Match` keeps two of "
    "them from undoing each other's work."
)


class OpenApi:
    """Handler of `/api/v1/openapi.json`.

    Args:
        parts: What is served besides this document.
    """

    def __init__(self, parts: Iterable[Routed]) -> None:
        self._parts = (*parts, self)

    def routes(self) -> Iterable[Route]:
        """Return what is served."""
        yield routing.get(
            PATH, self.show, query=NoQuery, answers={200: dict[str, Any]}, tagged=True
        )

    async def show(self, request: web.Request) -> web.Response:
        """Show this document."""
        query(request, NoQuery)
        return tagged(request, self._document)

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
        "info": {"title": "pubsubflow", "version": version("pubsubflow"), "description": _ABOUT},
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
    """Return the statuses with which a route may answer by a problem document."""
    found = {*route.problems, 400, 403, 503}
    if route.access is not Access.OPEN:
        found.add(401)
    if _NAME.search(route.path):
        found.add(404)
    if route.body is not None:
        found |= {408, 413, 415, 422}
    if route.intake:
        found.add(429)
    if route.matched:
        found.add(412)
    return sorted(found - route.answers.keys())


class _Writer:
    """Writes operations and gathers the components to which they refer."""

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}

    def operation(self, route: Route) -> Schema:
        """Return what the document says about a route."""
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
            written["requestBody"] = {"required": route.body_needed, "content": content}
            if isinstance(route.body, Media):
                written["requestBody"]["description"] = route.body.about
        return written

    def _parameters(self, route: Route) -> Iterator[Schema]:
        for name in _NAME.findall(route.path):
            schema = self._schema({**NAMES, **route.names}[name])
            yield _parameter("path", name, schema, needed=True)
        if route.query is not None:
            fields, needed, components = parameters_of(route.query)
            self.components |= components
            for name, schema in fields.items():
                yield _parameter("query", name, schema, needed=name in needed)
        headers = dict(route.headers)
        if route.tagged:
            headers["If-None-Match"] = "ETags of what is known already."
        if route.matched:
            headers["If-Match"] = "The ETag, or the revision, in quotes, that is to be changed."
        for name, about in headers.items():
            yield _parameter("header", name, {"type": "string", "description": about}, needed=False)

    def _responses(self, route: Route) -> Schema:
        responses = {
            str(status): self._response(status, body, tagged=route.tagged)
            for status, body in route.answers.items()
        }
        if route.tagged:
            responses["304"] = {
                "description": "What is known already.",
                "headers": _headers("ETag"),
            }
        problem = {PROBLEM: {"schema": self._schema(Problem)}}
        for status in problem_statuses(route):
            described: Schema = {"description": HTTPStatus(status).phrase, "content": problem}
            if status in _LATER:
                described["headers"] = _headers("Retry-After")
            responses[str(status)] = described
        return responses

    def _response(self, status: int, body: Any, *, tagged: bool) -> Schema:
        described: Schema = {"description": HTTPStatus(status).phrase}
        if isinstance(body, Media):
            described["description"] = body.about
        if body is not None:
            described["content"] = self._content(body)
        if tagged:
            described["headers"] = _headers("ETag")
        return described

    def _content(self, body: Any) -> Mapping[str, Schema]:
        if not isinstance(body, Media):
            return {"application/json": {"schema": self._schema(body)}}
        if body.item is not None:
            self._schema(body.item)  # named in the components, for those who read line by line
        return {kind: {} for kind in body.types}

    def _schema(self, kind: Any) -> Schema:
        if isinstance(kind, tuple):
            return {"anyOf": [self._schema(each) for each in kind]}
        (schema,), components = describe([kind])
        for name, component in components.items():
            if self.components.setdefault(name, component) != component:
                raise TypeError(f"two types of the API are named {name}")
        return schema


def _parameter(place: str, name: str, schema: Schema, *, needed: bool) -> Schema:
    about = schema.pop("description", None)
    described: Schema = {"name": name, "in": place, "required": needed, "schema": schema}
    return described if about is None else {**described, "description": about}


def _headers(name: str) -> Schema:
    return {name: {"schema": {"type": "string"}}}
