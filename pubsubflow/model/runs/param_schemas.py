"""Params that a DAG declares as a type are checked against its JSON Schema.

Only the daemon imports this module, and when it is needed: jsonschema takes long to import.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from pubsubflow.errors import InvalidInput
from pubsubflow.model.lazy_import import hidden
from pubsubflow.model.runs.param_rules import FORMATS
from pubsubflow.model.runs.patterns import matches_somewhere

# What checks formats for jsonschema, where it is installed, takes longer to import than all else of
# it, its grammar of IRIs over a second; the formats of params are those of `param_rules`.
with hidden("rfc3987_syntax", "isoduration", "rfc3986_validator", "uri_template", "webcolors"):
    from jsonschema import Draft202012Validator, TypeChecker, ValidationError, validators


def check_schema(dag_id: str, schema: dict[str, Any], params: dict[str, Any]) -> None:
    """Check params against a schema.

    Args:
        dag_id: The DAG, for the message.
        schema: Its schema of params.
        params: All params of a run.

    Raises:
        InvalidInput: They violate it; the text says which, and how.
    """
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
