"""Operations of the HTTP API as tools: read from the OpenAPI document that the daemon serves."""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from pubsubflow.errors import InvalidInput

_METHODS = ("get", "post", "put", "patch", "delete")
_REFERENCE = "#/components/schemas/"
_PLACE = re.compile(r"\{(\w+)\}")
# What never ends, what other programs call, and what answers with a secret that only its caller may
# keep: the answer of a tool is read by a model, and often stored. Sessions are for browsers.
_LEFT_OUT = frozenset(
    {
        *("get_healthz", "get_metrics", "get_openapi_json", "get_stream"),
        *(
            "post_connections_export",
            "post_cloudevents",
            "post_hooks_by_name",
            "post_subscriptions",
            "post_tokens",
        ),
        *("post_session", "delete_session", "post_session_links"),
    }
)
_ENDLESS = frozenset({"follow", "last_event_id"})


class Operation(Struct, frozen=True):
    """One operation of the API.

    Attributes:
        name: Its id in the document, which is the name of the tool.
        path: With the names of its parameters in braces.
        summary: One sentence.
        query: Names of its query parameters.
        schema: JSON Schema of all that it takes: parameters by name, and `body`.
    """

    name: str
    method: str
    path: str
    summary: str
    query: frozenset[str]
    schema: dict[str, Any]

    @property
    def reads(self) -> bool:
        """Whether it changes nothing."""
        return self.method == "GET"

    def url(self, arguments: Mapping[str, Any]) -> str:
        """Return the path of a request.

        Raises:
            InvalidInput: A part of the path is missing or empty.
        """

        def part(found: re.Match[str]) -> str:
            value = arguments.get(found[1])
            if value is None or value == "":
                raise InvalidInput(f"{self.name}: {found[1]} is missing")
            return quote(str(value), safe="")

        return _PLACE.sub(part, self.path)


def operations(document: Mapping[str, Any], *, writes: bool) -> dict[str, Operation]:
    """Return the operations of a document that become tools, by name.

    Args:
        document: The OpenAPI document.
        writes: Whether those that change something are among them.
    """
    found = (
        _operation(document, path, method, item[method])
        for path, item in document["paths"].items()
        for method in _METHODS
        if method in item and item[method]["operationId"] not in _LEFT_OUT
    )
    return {each.name: each for each in found if writes or each.reads}


def _operation(
    document: Mapping[str, Any], path: str, method: str, item: Mapping[str, Any]
) -> Operation:
    properties: dict[str, Any] = {}
    required: list[str] = []
    query: set[str] = set()
    for each in item.get("parameters", ()):
        name = each["name"]
        if each["in"] not in ("path", "query") or name in _ENDLESS:
            continue
        about = {"description": each["description"]} if "description" in each else {}
        properties[name] = {**each.get("schema", {}), **about}
        if each["in"] == "query":
            query.add(name)
        if each.get("required"):
            required.append(name)
    body = item.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None:
        properties["body"] = body.get("schema", {})
        if item["requestBody"].get("required"):
            required.append("body")
    schema: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
    schema["additionalProperties"] = False
    return Operation(
        item["operationId"],
        method.upper(),
        path,
        item.get("summary", ""),
        frozenset(query),
        _with_definitions(document, schema),
    )


def _with_definitions(document: Mapping[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that holds what it refers to, as a tool has no document around it."""
    all_schemas = document.get("components", {}).get("schemas", {})
    definitions: dict[str, Any] = {}
    waiting = [*_references(schema)]
    while waiting:
        name = waiting.pop()
        if name not in definitions:
            definitions[name] = all_schemas[name]
            waiting += _references(all_schemas[name])
    if definitions:
        schema = {**schema, "$defs": definitions}
    found: dict[str, Any] = _renamed(schema)
    return found


def _references(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        reference = value.get("$ref")
        if isinstance(reference, str):
            yield reference.removeprefix(_REFERENCE)
        for each in value.values():
            yield from _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)


def _renamed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _renamed(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_renamed(each) for each in value]
    if isinstance(value, str) and value.startswith(_REFERENCE):
        return "#/$defs/" + value.removeprefix(_REFERENCE)
    return value
