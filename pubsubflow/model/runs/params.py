"""Params of a run are validated before the run exists.

Only the daemon imports this module: jsonschema takes long to import.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import msgspec

from pubsubflow.errors import InvalidInput
from pubsubflow.model.lazy_import import hidden
from pubsubflow.model.runs.param_rules import FORMATS, json_type
from pubsubflow.model.runs.patterns import matches_somewhere
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.wire.messages import encode

# What checks formats for jsonschema, where it is installed, takes longer to import than all else of
# it, its grammar of IRIs over a second; the formats of params are those of `param_rules`.
with hidden("rfc3987_syntax", "isoduration", "rfc3986_validator", "uri_template", "webcolors"):
    from jsonschema import Draft202012Validator, TypeChecker, ValidationError, validators

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
        _check_schema(spec.dag_id, spec.params_schema, merged)
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


def _check_schema(dag_id: str, schema: dict[str, Any], params: dict[str, Any]) -> None:
    errors = sorted(_Validator(schema).iter_errors(params), key=lambda e: list(e.path))
    if errors:
        error = errors[0]
        where = ".".join(map(str, error.absolute_path))
        if error.validator == "required" and not where:
            absent = ", ".join(repr(name) for name in error.validator_value if name not in params)
            raise InvalidInput(f"DAG {dag_id!r}: {absent} must be given: it has no default")
        subject = f"param {where!r}" if where else "params"
        raise InvalidInput(f"DAG {dag_id!r}: {subject}: {error.message}; give another value")


def _check_format(_: Any, name: str, value: Any, __: Any) -> Iterator[ValidationError]:
    if name in FORMATS and isinstance(value, str):
        yield from _check_text(value, FORMATS[name], name)


def _check_pattern(_: Any, pattern: str, value: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and not matches_somewhere(pattern, value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _check_encoding(_: Any, name: str, value: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(value, str):
        yield from _check_text(value, bytes, name)


def _check_text(value: str, kind: Any, name: str) -> Iterator[ValidationError]:
    """Yield an error if a text cannot be read as a type, as a runner reads it."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        yield ValidationError(f"{value!r} is not a {name} ({error})")


def _is_integer(_: TypeChecker, value: object) -> bool:
    """Return whether a value is an integer; JSON Schema takes 1.0 for one, and msgspec does not."""
    return isinstance(value, int) and not isinstance(value, bool)


_Validator = validators.extend(  # type: ignore[no-untyped-call] # jsonschema has few types
    Draft202012Validator,
    {"format": _check_format, "contentEncoding": _check_encoding, "pattern": _check_pattern},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)


def _hint(key: str, known: list[str]) -> str:
    close = get_close_matches(key, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; it has: {', '.join(known)}" if known else "; it takes none"
