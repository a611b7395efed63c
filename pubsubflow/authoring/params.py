"""Params as a DAG declares them: a mapping of defaults, or a Struct type."""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from msgspec import NODEFAULT, Struct

from pubsubflow.authoring.datasets import json_object
from pubsubflow.authoring.schedules.cel import checked
from pubsubflow.authoring.source_location import mistake, nearest


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

    @property
    def names(self) -> list[str]:
        """All names, also of params without a default."""
        if self.type is None:
            return list(self.defaults)
        return [field.encode_name for field in msgspec.structs.fields(self.type)]

    def read(self, given: dict[str, Any]) -> Any:
        """Return a run's params as tasks see them: the dict, or the declared Struct."""
        return given if self.type is None else msgspec.convert(given, self.type)


def declare(
    params: object, *, scheduled: bool, computed: Collection[str] = frozenset()
) -> Declared:
    """Return what a DAG declares.

    Args:
        params: A mapping, a Struct type, or None.
        scheduled: Whether runs start without anybody giving params.
        computed: Params that every such run computes.

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
        elif scheduled and field.encode_name not in computed:
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


def declare_computed(expressions: object) -> dict[str, str]:
    """Return the checked `params_from` of a DAG.

    Raises:
        DefinitionError: It is no mapping of names to CEL over `events`, `event` and `partition`.
    """
    if expressions is None:
        return {}
    if not isinstance(expressions, Mapping) or not all(isinstance(key, str) for key in expressions):
        raise mistake(
            f"params_from must be a dict such as {{'day': 'event.partition'}}, not {expressions!r}"
        )
    return {
        name: checked(text, ("events", "event", "partition"), f"params_from: {name}")
        for name, text in expressions.items()
    }


def check_computed(computed: Collection[str], declared: Declared, *, datasets: bool) -> None:
    """Raise DefinitionError unless what is computed can be and is declared.

    Args:
        computed: Names of `params_from`.
        declared: The DAG's params.
        datasets: Whether its schedule holds datasets.
    """
    if computed and not datasets:
        raise mistake("params_from reads events, but no dataset stands in the schedule")
    names = declared.names
    for name in computed:
        if name not in names:
            hint = nearest(name, names) if names else ""
            raise mistake(f"params_from: {name!r} is no param of this DAG{hint}; add it to params=")
