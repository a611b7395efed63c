"""Function signatures of tasks: which parameters users fill, and which the runtime does."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import msgspec

from pubsubflow.authoring.runtime.context import Context


class FunctionSignature:
    """A function's parameters, split into those for the Context and those that users fill.

    Args:
        function: Any callable.

    Attributes:
        contexts: Parameters that get the Context.
        event: The parameter of a sensor that gets the event; None without one.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.event: str | None = None
        self._all = inspect.signature(function)
        self.contexts = [
            name
            for name, parameter in self._all.parameters.items()
            if _is_context(parameter.annotation, getattr(function, "__globals__", {}))
        ]
        self._given = self._all.replace(
            parameters=[
                parameter
                for name, parameter in self._all.parameters.items()
                if name not in self.contexts
            ]
        )

    @property
    def names(self) -> list[str]:
        """The parameters that users fill."""
        return list(self._given.parameters)

    @property
    def takes_any_keyword(self) -> bool:
        """Whether there is a `**keywords`."""
        return any(
            parameter.kind is inspect.Parameter.VAR_KEYWORD
            for parameter in self._given.parameters.values()
        )

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise TypeError unless the function can be called like that."""
        self._given.bind(*args, **kwargs)

    def call(
        self, context: Context, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Callable[[], Any]:
        """Return the call with the context filled in and results converted to annotated Structs.

        Raises:
            TypeError: The function cannot be called like that.
            msgspec.ValidationError: A value does not fit the annotated Struct or dataclass.
        """
        bound = self._given.bind(*args, **kwargs)
        for name, wanted in self._conversions.items():
            if name in bound.arguments:
                bound.arguments[name] = msgspec.convert(
                    bound.arguments[name], wanted, from_attributes=True
                )
        filled = dict.fromkeys(self.contexts, context) | bound.arguments
        if self.event is not None:
            filled[self.event] = context.trigger_event
        # Bound to the full signature, which may have the context before or between other
        # parameters.
        full = inspect.BoundArguments(
            self._all,
            {name: filled[name] for name in self._all.parameters if name in filled},
        )
        return lambda: self.function(*full.args, **full.kwargs)

    @cached_property
    def _conversions(self) -> dict[str, Any]:
        # Names that only a type checker imports cannot be resolved; nothing is converted then.
        try:
            hints = typing.get_type_hints(self.function)
        except (NameError, TypeError, AttributeError):
            return {}
        return {
            name: hints[name]
            for name, parameter in self._given.parameters.items()
            if name in hints
            and parameter.kind
            not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
            and _holds_struct(hints[name])
        }


def is_async(function: object) -> bool:
    """Return whether a call of it returns an awaitable."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object with `async def __call__`
    )


def is_generator(function: object) -> bool:
    """Return whether a call of it returns a generator."""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def _is_context(annotation: Any, names: Mapping[str, Any]) -> bool:
    if isinstance(annotation, str):
        return any(_names_context(part.strip(), names) for part in annotation.split("|"))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return Context in typing.get_args(annotation)
    return annotation is Context


def _names_context(annotation: str, names: Mapping[str, Any]) -> bool:
    """Resolve a dotted name without evaluation; the last part decides for an unknown name."""
    first, *rest = annotation.strip("\"'").split(".")
    if first not in names:
        return [first, *rest][-1] == "Context"
    found = names[first]
    for part in rest:
        found = getattr(found, part, None)
    return found is Context


def _holds_struct(hint: Any) -> bool:
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        return issubclass(hint, msgspec.Struct) or dataclasses.is_dataclass(hint)
    return any(_holds_struct(part) for part in typing.get_args(hint))
