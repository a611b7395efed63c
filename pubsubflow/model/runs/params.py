"""Params of a run are validated before the run exists."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pubsubflow.errors import InvalidInput
from pubsubflow.model.lazy_import import lazy_module
from pubsubflow.model.runs.param_rules import json_type
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.wire.messages import encode

# Most DAGs declare no schema, and jsonschema takes long to import.
param_schemas = lazy_module("pubsubflow.model.runs.param_schemas")

MAX_PARAMS_BYTES = 256 * 1024


def validate_params(spec: DagSpec, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the given params over the DAG's defaults.

    Raises:
        InvalidInput: A key is unknown, a value has another JSON type than the default or
            violates the schema, one without default is missing, or all are too large.
    """
    params = dict(given or {})
    known = _known(spec)
    for key in params:
        if key not in known and not takes_any(spec):
            raise InvalidInput(f"DAG {spec.dag_id!r} has no param {key!r}{_hint(key, known)}")
    merged = spec.params | params
    if spec.params_schema is None:
        for key, value in params.items():
            _check_type(spec.dag_id, key, value, spec.params[key])
    else:
        param_schemas.check_schema(spec.dag_id, spec.params_schema, merged)
    # Params are part of every task's message.
    size = len(encode(merged))
    if size > MAX_PARAMS_BYTES:
        raise InvalidInput(
            f"params of {size} bytes are larger than {MAX_PARAMS_BYTES}: "
            "store the data elsewhere and pass its location"
        )
    return merged


def preset_params(
    spec: DagSpec, preset: str | None, given: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """Return the given params over those of a preset of the DAG.

    Raises:
        InvalidInput: The DAG has no preset of this name.
    """
    if preset is None:
        return given
    if preset not in spec.presets:
        known = sorted(spec.presets)
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise InvalidInput(f"DAG {spec.dag_id!r} has no preset {preset!r}: {has}")
    return spec.presets[preset] | dict(given or {})


def takes_any(spec: DagSpec) -> bool:
    """Return whether a DAG takes params that it does not declare, as Airflow's do."""
    schema = spec.params_schema or {}
    return schema.get("additionalProperties") is True


def _known(spec: DagSpec) -> list[str]:
    if spec.params_schema is None:
        return sorted(spec.params)
    return sorted(_object_schema(spec.params_schema).get("properties", {}))


def _object_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema behind the reference that msgspec puts at the top."""
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: dict[str, Any] = schema["$defs"][reference.rpartition("/")[2]]
    return found


def _check_type(dag_id: str, key: str, value: Any, default: Any) -> None:
    wanted, found = json_type(default), json_type(value)
    if wanted not in ("null", found):
        raise InvalidInput(
            f"DAG {dag_id!r}: param {key!r} must be a {wanted} like its default {default!r}, "
            f"not the {found} {value!r}"
        )


def _hint(key: str, known: list[str]) -> str:
    close = get_close_matches(key, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; it has: {', '.join(known)}" if known else "; it takes none"
