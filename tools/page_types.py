"""Writes the types of the API for the page, from its OpenAPI document.

    python tools/page_types.py build/page/routes.d.ts < openapi.json

`tsc` then refuses a route, a parameter or a field that does not exist.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

Schema = Mapping[str, Any]


def types_of(described: Schema) -> str:
    """Return the TypeScript declarations of an OpenAPI document."""
    lines = ["// Made by tools/page_types.py."]
    for name, schema in described["components"]["schemas"].items():
        lines.append(f"export type {_named(name)} = {_type(schema)};")
    lines.append("export interface Routes {")
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            lines.append(f"  {json.dumps(f'{method.upper()} {path}')}: {_operation(operation)};")
    return "\n".join([*lines, "}", ""])


def _operation(operation: Schema) -> str:
    parameters = operation.get("parameters", ())
    path = " ".join(f"{each['name']}: string;" for each in parameters if each["in"] == "path")
    query = " ".join(
        f"{json.dumps(each['name'])}?: {_type(each['schema'])};"
        for each in parameters
        if each["in"] == "query"
    )
    body = _content(operation.get("requestBody", {})) or "undefined"
    found = [
        _content(answer) or "undefined"
        for status, answer in operation["responses"].items()
        if status.startswith("2")
    ]
    answer = " | ".join(dict.fromkeys(found))
    return f"{{ path: {{ {path} }}; query: {{ {query} }}; body: {body}; answer: {answer} }}"


def _content(holder: Schema) -> str:
    kinds = (_type(each.get("schema", {})) for each in holder.get("content", {}).values())
    return " | ".join(dict.fromkeys(kinds))


def _type(schema: Any) -> str:
    if not isinstance(schema, Mapping):
        return "unknown"
    for key, written in _KEYWORDS.items():
        if schema.get(key):
            return written(schema[key])
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(_type({**schema, "type": each}) for each in kind)
    if kind == "array":
        return f"readonly ({_type(schema.get('items'))})[]"
    return _object(schema) if kind == "object" else _PLAIN.get(kind or "", "unknown")


def _union(schemas: Iterable[Any]) -> str:
    return " | ".join(dict.fromkeys(_type(each) for each in schemas))


_PLAIN = {
    "integer": "number",
    "number": "number",
    "string": "string",
    "boolean": "boolean",
    "null": "null",
}
_KEYWORDS: Mapping[str, Callable[[Any], str]] = {
    "$ref": lambda reference: _named(reference.rsplit("/", 1)[1]),
    "enum": lambda values: " | ".join(map(json.dumps, values)),
    "const": json.dumps,
    "anyOf": _union,
    "oneOf": _union,
}


def _object(schema: Schema) -> str:
    if "properties" in schema:
        return "{ " + " ".join(_fields(schema)) + " }"
    extra = schema.get("additionalProperties", True)
    return f"Readonly<Record<string, {'never' if extra is False else _type(extra)}>>"


def _fields(schema: Schema) -> Iterator[str]:
    # The server writes every field, also those with a default; bodies may leave those out.
    needed = set(schema.get("required", ()))
    for name, each in schema["properties"].items():
        mark = "" if name in needed else "?"
        yield f"readonly {json.dumps(name)}{mark}: {_type(each)};"


def _named(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_")


def main(arguments: list[str]) -> int:
    """Write the types to the file that is named."""
    (out,) = arguments
    described = json.load(sys.stdin)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(types_of(described), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
