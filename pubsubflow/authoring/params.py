"""Params of a DAG are declared as a mapping of defaults, or as a Struct type."""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from msgspec import NODEFAULT, Struct

from pubsubflow.authoring.datasets import json_object
from pubsubflow.authoring.params_schema import params_schema
from pubsubflow.authoring.schedules.cel import checked_expression
from pubsubflow.authoring.source_location import definition_error, suggestion
from pubsubflow.errors import DefinitionError
from pubsubflow.model.json_values import json_fault


class DeclaredParams(Struct, frozen=True):
    """The declared params of a DAG.

    Attributes:
        defaults: JSON values.
        schema: JSON Schema, when declared as a type.
        type: That type.
    """

    defaults: dict[str, Any] = {}
    schema: dict[str, Any] | None = None
    type: Any = None

    @property
    def attributes(self) -> frozenset[str]:
        """What stands behind `params.` in templates: the params, and methods of a dict."""
        if self.type is None:
            return frozenset(self.defaults).union(("get", "items", "keys", "values"))
        return frozenset(field.name for field in msgspec.structs.fields(self.type))

    @property
    def names(self) -> list[str]:
        """All names, including params without a default."""
        if self.type is None:
            return list(self.defaults)
        return [field.encode_name for field in msgspec.structs.fields(self.type)]


def declare_params(
    params: object, *, scheduled: bool, computed: Collection[str] = frozenset()
) -> DeclaredParams:
    """Return the params that a DAG declares.

    Args:
        params: A mapping, a Struct type, or None.
        scheduled: Whether a schedule starts runs, which are given no params.
        computed: Params that every such run computes.

    Raises:
        DefinitionError: It is neither, or JSON cannot encode it, or it lacks a default that a
            schedule needs.
    """
    if not (isinstance(params, type) and issubclass(params, Struct)):
        return DeclaredParams(json_object(params, "params"))
    defaults: dict[str, Any] = {}
    for field in msgspec.structs.fields(params):
        if field.default is not NODEFAULT:
            value = field.default
        elif field.default_factory is not NODEFAULT:
            value = field.default_factory()
        # Runs that a schedule starts are given no params, so each one needs a value.
        elif scheduled and field.encode_name not in computed:
            raise definition_error(
                f"param {field.name!r} has no default, and a schedule starts runs without params"
            )
        else:
            continue
        defaults[field.encode_name] = value
    try:
        plain = msgspec.to_builtins(defaults, str_keys=True)
        schema = params_schema(params)
    except TypeError as error:
        raise definition_error(
            f"params {params.__name__} cannot be described as JSON: {error}"
        ) from error
    except DefinitionError as error:
        raise definition_error(f"params {params.__name__}: {error.message}") from error
    fault = json_fault(plain, "params")
    if fault is not None:
        raise definition_error(fault)
    _check_defaults(params, plain)
    return DeclaredParams(plain, schema, params)


def _check_defaults(params: type[Struct], plain: dict[str, Any]) -> None:
    """Raise DefinitionError if a default is not of its param's type, which Structs do not check."""
    for field in msgspec.structs.fields(params):
        if field.encode_name in plain:
            try:
                msgspec.convert(plain[field.encode_name], field.type, str_keys=True)
            except msgspec.ValidationError as error:
                raise definition_error(
                    f"the default of param {field.encode_name!r} does not fit its type: {error}"
                ) from error


def declare_computed(expressions: object) -> dict[str, str]:
    """Return the checked `params_from` of a DAG.

    Raises:
        DefinitionError: It is not a mapping of names to CEL over `events`, `event` and
            `partition`.
    """
    if expressions is None:
        return {}
    if not isinstance(expressions, Mapping) or not all(isinstance(key, str) for key in expressions):
        raise definition_error(
            f"params_from must be a dict such as {{'day': 'event.partition'}}, not {expressions!r}"
        )
    return {
        name: checked_expression(text, ("events", "event", "partition"), f"params_from: {name}")
        for name, text in expressions.items()
    }


def check_computed(computed: Collection[str], declared: DeclaredParams, *, datasets: bool) -> None:
    """Raise DefinitionError unless every computed param is declared and has events to read.

    Args:
        computed: Names of `params_from`.
        declared: The DAG's params.
        datasets: Whether its schedule holds datasets.
    """
    if computed and not datasets:
        raise definition_error("params_from reads events, but the schedule holds no dataset")
    names = declared.names
    for name in computed:
        if name not in names:
            hint = suggestion(name, names) if names else ""
            raise definition_error(
                f"params_from: {name!r} is not a param of this DAG{hint}; add it to params="
            )
