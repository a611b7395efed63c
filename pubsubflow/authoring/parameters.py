"""Params as a DAG declares them: a mapping of defaults, or a Struct type."""

from typing import Any

import msgspec
from msgspec import NODEFAULT, Struct

from pubsubflow.authoring.datasets import json_object
from pubsubflow.authoring.places import mistake


class Declared(Struct, frozen=True):
    """What a DAG says about its params.

    Attributes:
        defaults: JSON values.
        schema: JSON Schema, when declared as a type.
        type: That type.
    """

    defaults: dict[str, Any] = {}
    schema: dict[str, Any] | None = None
    type: Any = None

    def read(self, given: dict[str, Any]) -> Any:
        """Return a run's params as tasks see them: the dict, or the declared Struct."""
        return given if self.type is None else msgspec.convert(given, self.type)


def declare(params: object, *, scheduled: bool) -> Declared:
    """Return what a DAG declares.

    Args:
        params: A mapping, a Struct type, or None.
        scheduled: Whether runs start without anybody giving params.

    Raises:
        DefinitionError: It is neither, or cannot be JSON, or lacks a default that a schedule
            needs.
    """
    if not (isinstance(params, type) and issubclass(params, Struct)):
        return Declared(json_object(params, "params"))
    defaults: dict[str, Any] = {}
    for field in msgspec.structs.fields(params):
        if field.default is not NODEFAULT:
            value = field.default
        elif field.default_factory is not NODEFAULT:
            value = field.default_factory()
        elif scheduled:
            raise mistake(
                f"param {field.name!r} has no default, and a schedule starts runs without params"
            )
        else:
            continue
        defaults[field.encode_name] = value
    try:
        return Declared(
            msgspec.to_builtins(defaults, str_keys=True), msgspec.json.schema(params), params
        )
    except TypeError as error:
        raise mistake(f"params {params.__name__} cannot be described as JSON: {error}") from error
