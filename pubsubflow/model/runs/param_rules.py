"""JSON Schema rules of single params, checked without a validator, which takes long to import.

The rules are those that `Param` writes; a test holds them against the daemon's validator.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from pubsubflow.model.runs.patterns import matches_somewhere

FORMATS: Mapping[str, Any] = {
    "date": date,
    "date-time": Annotated[datetime, Meta(tz=True)],
    "local-date-time": Annotated[datetime, Meta(tz=False)],
    "any-date-time": datetime,
    "time": Annotated[time, Meta(tz=True)],
    "local-time": Annotated[time, Meta(tz=False)],
    "any-time": time,
    "duration": timedelta,
    "decimal": Decimal,
    "uuid": UUID,
}
"""Formats of texts in schemas, by the types that runners read them as: both must agree."""

JSON_TYPES = ("string", "integer", "number", "boolean", "object", "array", "null")


def json_type(value: Any) -> str:
    """Return the name that JSON Schema has for the type of a value; any number is a `number`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, Mapping) else "array"


def form_schema(defaults: Mapping[str, Any], schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the JSON Schema of the params of a DAG, with defaults, as forms take it.

    Args:
        defaults: Param → default.
        schema: The schema that was declared; without one, types are those of the defaults.
    """
    found: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
    if schema is None:
        found["properties"] = {
            name: {} if value is None else {"type": json_type(value)}
            for name, value in defaults.items()
        }
    else:
        found |= {key: each for key, each in schema.items() if key != "$ref"}
        reference = schema.get("$ref")
        if reference is not None:
            # msgspec puts the params themselves among the definitions.
            found |= schema["$defs"][reference.rpartition("/")[2]]
    found["properties"] = {
        name: each | ({"default": defaults[name]} if name in defaults else {})
        for name, each in found["properties"].items()
    }
    return found | {"additionalProperties": False}


def find_fault(schema: Mapping[str, Any], value: Any) -> str | None:
    """Return why a value does not fit the schema of a param, or None if it does.

    Args:
        schema: JSON Schema with the keywords of `Param` alone.
        value: A JSON value.
    """
    named = schema.get("type")
    types = () if named is None else (named,) if isinstance(named, str) else tuple(named)
    if types and not any(_is_of(value, each) for each in types):
        return f"{value!r} is not of type {' or '.join(types)}"
    if "enum" in schema and not any(_same(value, each) for each in schema["enum"]):
        return f"{value!r} is none of {list(schema['enum'])}"
    if isinstance(value, str):
        return _text_fault(schema, value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _bound_fault(schema, value, _NUMBER_BOUNDS, value)
    if isinstance(value, list | tuple):
        return _list_fault(schema, value)
    return None


def _is_of(value: Any, name: str) -> bool:
    if name == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    return json_type(value) == name


def _same(one: Any, other: Any) -> bool:
    # In JSON true is not 1.
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _text_fault(schema: Mapping[str, Any], value: str) -> str | None:
    pattern, form = schema.get("pattern"), FORMATS.get(schema.get("format", ""))
    if pattern is not None and not matches_somewhere(pattern, value):
        return f"{value!r} does not match {pattern!r}"
    if form is not None:
        try:
            msgspec.convert(value, form)
        except msgspec.ValidationError as error:
            return f"{value!r} is not a {schema['format']} ({error})"
    return _bound_fault(schema, len(value), _LENGTH_BOUNDS, value)


def _list_fault(schema: Mapping[str, Any], value: Sequence[Any]) -> str | None:
    items: Mapping[str, Any] = schema.get("items") or {}
    for item in value if items else ():
        fault = find_fault(items, item)
        if fault is not None:
            return fault
    if schema.get("uniqueItems"):
        for position, item in enumerate(value):
            if any(_same(item, other) for other in value[:position]):
                return f"{item!r} occurs twice"
    return _bound_fault(schema, len(value), _ITEM_BOUNDS, value)


_Bounds = Mapping[str, tuple[Callable[[Any, Any], bool], str]]
_NUMBER_BOUNDS: _Bounds = {
    "minimum": (lambda value, bound: value >= bound, "is less than"),
    "maximum": (lambda value, bound: value <= bound, "is more than"),
    "exclusiveMinimum": (lambda value, bound: value > bound, "is not more than"),
    "exclusiveMaximum": (lambda value, bound: value < bound, "is not less than"),
}
_LENGTH_BOUNDS: _Bounds = {
    "minLength": (lambda value, bound: value >= bound, "is shorter than"),
    "maxLength": (lambda value, bound: value <= bound, "is longer than"),
}
_ITEM_BOUNDS: _Bounds = {
    "minItems": (lambda value, bound: value >= bound, "has fewer items than"),
    "maxItems": (lambda value, bound: value <= bound, "has more items than"),
}


def _bound_fault(
    schema: Mapping[str, Any], measure: float, bounds: _Bounds, value: Any
) -> str | None:
    for keyword, (holds, says) in bounds.items():
        if keyword in schema and not holds(measure, schema[keyword]):
            return f"{value!r} {says} {schema[keyword]}"
    return None
