"""Params declared as a mapping of defaults or `Param`s, or as the arguments of a function."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

import msgspec
from msgspec import NODEFAULT, Struct

from pubsubflow.authoring.datasets import json_object
from pubsubflow.authoring.param import Param
from pubsubflow.authoring.params_schema import params_schema
from pubsubflow.authoring.source_location import definition_error, suggestion
from pubsubflow.model.runs.param_rules import json_type

_VARIABLE = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


class DeclaredParams(Struct, frozen=True):
    """The declared params of a DAG.

    Attributes:
        defaults: JSON values.
        schema: JSON Schema, when declared as a type, by `Param`s or as arguments.
        type: That type.
        required: Those without a default, unless a type declares them.
    """

    defaults: dict[str, Any] = {}
    schema: dict[str, Any] | None = None
    type: Any = None
    required: tuple[str, ...] = ()

    @property
    def attributes(self) -> frozenset[str]:
        """What stands behind `params.` in templates: the params, and methods of a dict."""
        if self.type is None:
            return frozenset(self.names).union(("get", "items", "keys", "values"))
        return frozenset(field.name for field in msgspec.structs.fields(self.type))

    @property
    def names(self) -> list[str]:
        """All names, including params without a default."""
        if self.type is None:
            return [*self.defaults, *self.required]
        return [field.encode_name for field in msgspec.structs.fields(self.type)]


class Arguments(Struct, frozen=True):
    """The arguments of an `@dag` function as params.

    Attributes:
        given: Name → default or `Param`; `NODEFAULT` without one.
        kinds: Name → annotated type.
    """

    given: dict[str, Any] = {}
    kinds: dict[str, Any] = {}

    def with_defaults(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> "Arguments":
        """Return them with other defaults, as a call of the function gives them.

        Raises:
            DefinitionError: The function has no such arguments.
        """
        names = list(self.given)
        if len(args) > len(names):
            raise definition_error(f"the function takes {len(names)} arguments, not {len(args)}")
        values = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name not in names or name in values:
                hint = suggestion(name, names) if names else ""
                raise definition_error(f"the function has no argument {name!r} left{hint}")
            values[name] = value
        changed = dict(self.given)
        for name, value in values.items():
            before = changed[name]
            # By keywords of JSON Schema in their own spelling, which Param takes as well.
            changed[name] = Param(value, **before.schema) if isinstance(before, Param) else value
        return Arguments(changed, self.kinds)


def function_arguments(body: Callable[..., object]) -> Arguments:
    """Return the arguments of an `@dag` function as params."""
    parameters = inspect.signature(body).parameters.values()
    try:
        hints = get_type_hints(body, include_extras=True)
    except (NameError, TypeError):
        hints = {}  # names that only a type checker imports
    own = [each for each in parameters if each.kind not in _VARIABLE]
    return Arguments(
        {each.name: NODEFAULT if each.default is each.empty else each.default for each in own},
        {each.name: hints[each.name] for each in own if hints.get(each.name, Any) is not Any},
    )


def declare_mapping(params: object, arguments: Arguments) -> DeclaredParams:
    """Return the params of a mapping of defaults or `Param`s, and those of a function.

    Raises:
        DefinitionError: It is not a mapping, JSON cannot encode it, a name stands in both, or a
            default does not fit its type.
    """
    if params is not None and not isinstance(params, Mapping):
        return DeclaredParams(json_object(params, "params"))
    twice = sorted(arguments.given.keys() & (params or {}).keys())
    if twice:
        raise definition_error(f"param {twice[0]!r} stands in params= and among the arguments")
    given = {**(params or {}), **arguments.given}
    plain = {
        name: each.default if isinstance(each, Param) else each for name, each in given.items()
    }
    required = tuple(name for name, value in plain.items() if value is NODEFAULT)
    defaults = json_object({k: v for k, v in plain.items() if v is not NODEFAULT}, "params")
    described = required or arguments.kinds or any(isinstance(x, Param) for x in given.values())
    if not described:
        # Without a schema values are held against the types of the defaults.
        return DeclaredParams(defaults)
    return _described(given, defaults, required, arguments)


def _described(
    given: Mapping[str, Any],
    defaults: dict[str, Any],
    required: tuple[str, ...],
    arguments: Arguments,
) -> DeclaredParams:
    """Return params with the JSON Schema of each."""
    typed = _typed_schema({name: kind for name, kind in arguments.kinds.items() if name in given})
    properties: dict[str, Any] = {}
    for name, each in given.items():
        schema = typed["properties"].get(name, {})
        if isinstance(each, Param):
            schema = schema | each.schema
        elif not schema and defaults.get(name) is not None:
            schema = {"type": json_type(defaults[name])}
        properties[name] = schema
        if name in arguments.kinds and name in defaults:
            check_default(name, defaults[name], arguments.kinds[name])
    schema = {"type": "object", "properties": properties, "required": list(required)}
    if typed["$defs"]:
        schema["$defs"] = typed["$defs"]
    return DeclaredParams(defaults, schema, required=required)


def _typed_schema(kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties of annotated arguments, and the definitions that they refer to."""
    if not kinds:
        return {"properties": {}, "$defs": {}}
    fields = list(kinds.items())
    try:
        whole = params_schema(msgspec.defstruct("Arguments", fields))
    except TypeError as error:
        raise definition_error(f"an argument cannot be described as JSON: {error}") from error
    definitions = dict(whole["$defs"])
    own = definitions.pop(whole["$ref"].rpartition("/")[2])
    return {"properties": own["properties"], "$defs": definitions}


def no_default(name: str) -> Exception:
    """Return the error for a param that a schedule would have to give a value."""
    return definition_error(
        f"param {name!r} has no default, and a schedule starts runs without params"
    )


def check_default(name: str, value: Any, kind: Any) -> None:
    """Raise DefinitionError unless a default fits the type of its param."""
    try:
        msgspec.convert(value, kind, str_keys=True)
    except msgspec.ValidationError as error:
        raise definition_error(
            f"the default of param {name!r} does not fit its type: {error}"
        ) from error
