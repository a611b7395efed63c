"""Param values at the command line are read as the types that their DAG declares."""

from collections.abc import Iterable, Mapping
from typing import Any

from pubsubflow.cli.parsers import json_or_text, mapping, split_pair
from pubsubflow.client import Client

_Types = frozenset[str] | None


async def run_params(
    client: Client, dag_id: str, whole: str | None, single: Iterable[str]
) -> dict[str, Any] | None:
    """Return the params of a run given as one JSON object, as `name=value`, or as both.

    A value is JSON, or else text; it is text as well where the param takes texts and not what the
    JSON stands for, so `-p version=1.10` needs no further quotes.

    Args:
        client: Reads what the DAG declares, if there is a `name=value`.
        dag_id: The DAG.
        whole: A JSON object.
        single: Texts `name=value`.

    Raises:
        ConfigError: The text is not a JSON object, or a pair has no `=`.
    """
    given = list(single)
    if not given:
        return typed_params({}, None, whole, given)
    dag = await client.dag(dag_id)
    return typed_params(dag.params, dag.params_schema, whole, given)


def typed_params(
    defaults: Mapping[str, Any],
    schema: dict[str, Any] | None,
    whole: str | None,
    single: Iterable[str],
) -> dict[str, Any] | None:
    """Return the params of a run, as `run_params` does, from what its DAG declares.

    Args:
        defaults: Param → its default.
        schema: JSON Schema of the params; None for params that have defaults alone.
        whole: A JSON object.
        single: Texts `name=value`.

    Raises:
        ConfigError: The text is not a JSON object, or a pair has no `=`.
    """
    found = {} if whole is None else mapping(whole)
    types = _declared_types(defaults, schema)
    for name, text in (split_pair(pair, "param") for pair in single):
        found[name] = _value(text, types.get(name))
    return found or None


def form_values(schema: dict[str, Any] | None, single: Iterable[str]) -> dict[str, Any]:
    """Return the values of a form given as `name=value`, read as params are.

    Raises:
        ConfigError: A pair has no `=`.
    """
    types = _declared_types({}, schema)
    given = [split_pair(pair, "value") for pair in single]
    return {name: _value(text, types.get(name)) for name, text in given}


def _value(text: str, types: _Types) -> Any:
    value = json_or_text(text)
    if types is not None and "string" in types and not _json_types(value) & types:
        return text
    return value


def _declared_types(
    defaults: Mapping[str, Any], schema: dict[str, Any] | None
) -> dict[str, _Types]:
    """Return the JSON types of each param; None for any type."""
    if schema is None:
        return {
            name: None if value is None else _json_types(value) for name, value in defaults.items()
        }
    properties = _resolved(schema, schema).get("properties", {})
    return {name: _schema_types(each, schema) for name, each in properties.items()}


def _schema_types(schema: dict[str, Any], root: dict[str, Any]) -> _Types:
    schema = _resolved(schema, root)
    if "enum" in schema:
        return frozenset().union(*map(_json_types, schema["enum"]))
    if "anyOf" in schema:
        options = [_schema_types(each, root) for each in schema["anyOf"]]
        known = [each for each in options if each is not None]
        return frozenset().union(*known) if len(known) == len(options) else None
    named = schema.get("type")
    return None if named is None else frozenset([named] if isinstance(named, str) else named)


def _resolved(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: dict[str, Any] = root["$defs"][reference.rpartition("/")[2]]
    return found


def _json_types(value: object) -> frozenset[str]:
    """Return the names that JSON Schema has for the type of a value."""
    if value is None:
        return frozenset({"null"})
    if isinstance(value, bool):
        return frozenset({"boolean"})
    if isinstance(value, int):
        return frozenset({"integer", "number"})
    if isinstance(value, float):
        return frozenset({"number"})
    if isinstance(value, str):
        return frozenset({"string"})
    return frozenset({"object" if isinstance(value, dict) else "array"})
