"""Function signatures of tasks: which parameters users fill, and which the runtime does."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache, cached_property, partial
from importlib import import_module
from typing import Any

import msgspec

from pubsubflow.authoring.runtime.context import Context
from pubsubflow.authoring.runtime.templating.lazy_value import value_of

_CONTEXT_KEYWORDS = frozenset({"context", "kwargs"})
CONTEXT_NAMES = frozenset(
    {
        *("conn", "dag", "dag_run", "data_interval_end", "data_interval_start", "ds", "ds_nodash"),
        *("execution_date", "logical_date", "macros", "params", "prev_data_interval_end"),
        *("prev_data_interval_end_success", "prev_data_interval_start_success"),
        *(
            "prev_data_interval_start",
            "prev_start_date_success",
            "run_id",
            "task",
            "task_instance",
            "task_instance_key_str",
        ),
        *("ti", "triggering_asset_events", "ts", "ts_nodash", "ts_nodash_with_tz", "var"),
    }
)
"""The names of Airflow's context that a parameter may have to be filled with it."""


_Shape = tuple[int, tuple[str, ...]]
"""The number of arguments without a name, and the names of the others."""


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
        self._rest = next(
            (
                name
                for name, parameter in self._all.parameters.items()
                if parameter.kind is parameter.VAR_KEYWORD and name in _CONTEXT_KEYWORDS
            ),
            None,
        )
        self._optional = [
            name
            for name, parameter in self._all.parameters.items()
            if parameter.default is None and name in CONTEXT_NAMES
        ]
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
        self._fitting: set[_Shape] = set()
        self._checked: set[_Shape] = set()

    @property
    def names(self) -> list[str]:
        """The parameters that users fill."""
        return list(self._given.parameters)

    @cached_property
    def is_async(self) -> bool:
        """Whether a call of the function returns an awaitable."""
        return is_async(self.function)

    @cached_property
    def takes_any_keyword(self) -> bool:
        """Whether there is a `**keywords`."""
        return any(
            parameter.kind is inspect.Parameter.VAR_KEYWORD
            for parameter in self._given.parameters.values()
        )

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise TypeError unless the function can be called like that."""
        # That depends on the number and the names of its arguments alone.
        shape = len(args), tuple(kwargs)
        if shape not in self._checked:
            self._given.bind(*args, **kwargs)
            self._checked.add(shape)

    def call(
        self, context: Context, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Callable[[], Any]:
        """Return the call with the context filled in and results converted to annotated Structs.

        Raises:
            TypeError: The function cannot be called like that.
            msgspec.ValidationError: A value does not fit the annotated Struct or dataclass.
        """
        shape = len(args), tuple(kwargs)  # see `check`
        if shape in self._fitting:
            return partial(self.function, *args, **dict.fromkeys(self.contexts, context), **kwargs)
        bound = self._given.bind(*args, **kwargs)
        if self._passes_on(args):
            self._fitting.add(shape)
        for name, wanted in self._conversions.items():
            if name in bound.arguments:
                bound.arguments[name] = msgspec.convert(
                    bound.arguments[name], wanted, from_attributes=True
                )
        filled = dict.fromkeys(self.contexts, context) | bound.arguments
        if self._rest is not None or self._optional:
            self._fill_names(context, filled)
        if self.event is not None:
            filled[self.event] = context.trigger_event
        # Bound to the full signature, which may have the context before or between other
        # parameters.
        full = inspect.BoundArguments(
            self._all,
            {name: filled[name] for name in self._all.parameters if name in filled},
        )
        return lambda: self.function(*full.args, **full.kwargs)

    def _passes_on(self, args: tuple[Any, ...]) -> bool:
        """Return whether the function gets what users give as it is, and the context by name."""
        changed = self._conversions or self._optional or self.event is not None
        if changed or self._rest is not None:
            return False
        kinds = [self._all.parameters[name].kind for name in self.contexts]
        by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        return not kinds or (not args and all(kind in by_name for kind in kinds))

    def _fill_names(self, context: Context, filled: dict[str, Any]) -> None:
        """Fill `ti=None` and the like, and `**context`, as Airflow does; what is given stays."""
        names = context_names(context)
        for name in self._optional:
            if name not in filled:
                filled[name] = value_of(names[name])
        if self._rest is not None:
            more = {name: names[name] for name in names.keys() - self._all.parameters.keys()}
            filled[self._rest] = more | filled.get(self._rest, {})

    def with_names(
        self, context: Context, args: tuple[Any, ...], kwargs: Mapping[str, Any], **more: Any
    ) -> dict[str, Any]:
        """Return keyword arguments, with those of Airflow's names that are parameters added.

        Args:
            context: The task's.
            args: The positional arguments.
            kwargs: The keyword arguments; they stay.
            more: Further names.
        """
        positional = list(self._given.parameters)[: len(args)]
        wanted = CONTEXT_NAMES.union(more).intersection(self._given.parameters)
        missing = wanted.difference(positional, kwargs)
        names = {**context_names(context), **more} if missing else {}
        found = {name: value_of(names[name]) for name in missing} | dict(kwargs)
        if self.takes_any_keyword and more:
            found = {name: more[name] for name in more.keys() - set(positional)} | found
        return found

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


@cache
def _context_names() -> Callable[[Context], dict[str, Any]]:
    """Import the names at their first use: most tasks need none of them."""
    names = import_module("pubsubflow.authoring.runtime.context_names")
    return names.context_names  # type: ignore[no-any-return]


def context_names(context: Context) -> dict[str, Any]:
    """Return Airflow's names with their values; see `context_names.NAMES`."""
    return _context_names()(context)


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
