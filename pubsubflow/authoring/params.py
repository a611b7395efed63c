"""Params of a DAG are declared as a mapping, as a Struct type, or as a function's arguments."""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from msgspec import NODEFAULT, Struct

from pubsubflow.authoring.params_mapping import (
    Arguments,
    DeclaredParams,
    check_default,
    declare_mapping,
    no_default,
)
from pubsubflow.authoring.params_schema import params_schema
from pubsubflow.authoring.schedules.cel import checked_expression
from pubsubflow.authoring.source_location import definition_error, suggestion
from pubsubflow.errors import DefinitionError
from pubsubflow.model.json_values import json_fault


def declare_params(
    params: object,
    *,
    scheduled: bool,
    computed: Collection[str] = frozenset(),
    arguments: Arguments | None = None,
) -> DeclaredParams:
    """Return the params that a DAG declares.

    Args:
        params: A mapping of defaults or `Param`s, a Struct type, or None.
        scheduled: Whether a schedule starts runs, which are given no params.
        computed: Params that every such run computes.
        arguments: Those that are arguments of an `@dag` function.

    Raises:
        DefinitionError: It is neither, or JSON cannot encode it, or it lacks a default that a
            schedule needs.
    """
    if not (isinstance(params, type) and issubclass(params, Struct)):
        declared = declare_mapping(params, arguments or Arguments())
        for name in declared.required if scheduled else ():
            if name not in computed:
                raise no_default(name)
        return declared
    if arguments is not None and arguments.given:
        raise definition_error(
            f"params={params.__name__} and arguments of the function both declare params; "
            "leave one of them out"
        )
    return _declare_type(params, scheduled=scheduled, computed=computed)


def _declare_type(
    params: type[Struct], *, scheduled: bool, computed: Collection[str]
) -> DeclaredParams:
    defaults: dict[str, Any] = {}
    for field in msgspec.structs.fields(params):
        if field.default is not NODEFAULT:
            value = field.default
        elif field.default_factory is not NODEFAULT:
            value = field.default_factory()
        # Runs that a schedule starts are given no params, so each one needs a value.
        elif scheduled and field.encode_name not in computed:
            raise no_default(field.name)
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
            check_default(field.encode_name, plain[field.encode_name], field.type)


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
