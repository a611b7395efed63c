"""`Param`: the default of a param with its JSON Schema, and what people read about it."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

from msgspec import NODEFAULT

from pubsubflow.authoring.source_location import definition_error, suggestion
from pubsubflow.errors import DefinitionError
from pubsubflow.model.json_values import json_fault
from pubsubflow.model.runs.param_rules import FORMATS, JSON_TYPES, find_fault, json_type
from pubsubflow.model.runs.patterns import check_pattern

_PYTHON_TYPES = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    dict: "object",
    list: "array",
    None: "null",
    type(None): "null",
}
_SHOWN = frozenset({"multiline", "password"})
"""Formats that only say how a form shows the param."""


class ParamKeywords(TypedDict, total=False):
    """The keywords of `Param`: JSON Schema's, in Python's spelling."""

    type: Any
    format: str
    enum: Sequence[Any]
    pattern: str
    minimum: float
    maximum: float
    exclusive_minimum: float
    exclusive_maximum: float
    min_length: int
    max_length: int
    items: Mapping[str, Any]
    min_items: int
    max_items: int
    unique_items: bool
    title: str
    description: str
    examples: Sequence[Any]


class Param:
    """A param with its JSON Schema: `Param("2026-01-01", format="date")`.

    Args:
        default: A JSON value; left out, every run must be given one.
        keywords: JSON Schema. `type`: a name such as `string` or `integer`, a Python type, or a
            list of them; the default's when left out. `format`: `date`, `date-time`, `time`,
            `duration`, `decimal`, `uuid`; `multiline` and `password` are for forms. `enum`: the
            values that are allowed. `pattern`: a regular expression that a part of the text
            matches, in linear time. `minimum`, `maximum`, `exclusive_minimum`,
            `exclusive_maximum`: of a number. `min_length`, `max_length`: of a text. `items`: the
            schema of a list's elements; `min_items`, `max_items`, `unique_items`. `title`,
            `description`, `examples`: for people.

    Attributes:
        default: The default, or `msgspec.NODEFAULT`.
        schema: The JSON Schema.

    Raises:
        DefinitionError: A keyword is unknown or invalid, or the default does not fit.
    """

    def __init__(self, default: Any = NODEFAULT, **keywords: Unpack[ParamKeywords]) -> None:
        self.default = default
        self.schema = _schema(keywords, "Param")
        if default is NODEFAULT:
            return
        fault = json_fault(default, "the default of a Param")
        if fault is not None:
            raise definition_error(fault)
        if "type" not in self.schema and "enum" not in self.schema and default is not None:
            self.schema["type"] = json_type(default)
        if (fault := find_fault(self.schema, default)) is not None:
            # With None as default Airflow's people mean that there is none.
            hint = "; leave the default out to demand a value" if default is None else ""
            raise definition_error(f"the default of a Param does not fit it: {fault}{hint}")

    def __repr__(self) -> str:
        return f"Param({'' if self.default is NODEFAULT else repr(self.default)})"


def _schema(keywords: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return keywords as JSON Schema.

    Raises:
        DefinitionError: One is unknown or has an invalid value.
    """
    found: dict[str, Any] = {}
    for name, value in keywords.items():
        spelled = name if name in _JSON_NAMES else _PYTHON_NAMES.get(name)
        if spelled is None:
            raise definition_error(f"{what} has no keyword {name!r}{suggestion(name, _JSON_NAMES)}")
        try:
            found[_JSON_NAMES[spelled]] = _CHECKS[spelled](value)
        except (TypeError, ValueError) as error:
            raise definition_error(f"{what}: {name}={value!r} {error}") from None
        except DefinitionError as error:
            raise definition_error(f"{what}: {error.message}") from None
    return found


def _type(value: Any) -> Any:
    names = [_PYTHON_TYPES.get(each, each) for each in _several(value)]
    if not names or not all(name in JSON_TYPES for name in names):
        raise ValueError(f"must be of {', '.join(JSON_TYPES)}")
    return names[0] if len(names) == 1 else names


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _format(value: Any) -> str:
    known = [*FORMATS, *_SHOWN]
    if value not in known:
        raise ValueError("is not known" + suggestion(str(value), known))
    return str(value)


def _pattern(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("must be a regular expression")
    check_pattern(value)
    return value


def _values(value: Any) -> list[Any]:
    if not isinstance(value, list | tuple) or not value:
        raise TypeError("must be a list of values")
    if (fault := json_fault(list(value), "it")) is not None:
        raise ValueError(fault)
    return list(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("must be a number")
    return value


def _length(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError("must be a whole number of at least 0")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("must be True or False")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("must be a string")
    return value


def _items(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError("must be a dict such as {'type': 'string'}")
    return _schema(value, "items")


_CHECKS: Mapping[str, Any] = {
    "type": _type,
    "format": _format,
    "enum": _values,
    "pattern": _pattern,
    "minimum": _number,
    "maximum": _number,
    "exclusive_minimum": _number,
    "exclusive_maximum": _number,
    "min_length": _length,
    "max_length": _length,
    "items": _items,
    "min_items": _length,
    "max_items": _length,
    "unique_items": _flag,
    "title": _text,
    "description": _text,
    "examples": _values,
}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


_JSON_NAMES = {name: _camel(name) for name in _CHECKS}
_PYTHON_NAMES = {spelled: name for name, spelled in _JSON_NAMES.items()}
