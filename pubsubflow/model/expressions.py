"""CEL expressions over events: filters and run parameters.

CEL is a small language that always ends, see https://cel.dev; the interpreter is the library
`common-expression-language`.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import msgspec

from pubsubflow.errors import DefinitionError, InvalidInput
from pubsubflow.model.lazy_import import lazy_module
from pubsubflow.model.wire.messages import EventInfo

cel = lazy_module("cel")


class _Program(Protocol):
    def execute(self, context: "Mapping[str, Any] | Context") -> Any: ...
    def variables(self) -> list[str]: ...


class Context(Protocol):
    """Values in the interpreter's own form, for several expressions over the same ones."""

    def add_variable(self, name: str, value: Any) -> None:
        """Add a value; that takes longer than to evaluate an expression."""


def make_context() -> Context:
    """Return an empty context."""
    context: Context = cel.Context()
    return context


@lru_cache(maxsize=4096)
def compile_expression(text: str) -> _Program:
    """Return the compiled expression.

    Raises:
        DefinitionError: It is no CEL.
    """
    try:
        program: _Program = cel.compile(text)
    except ValueError as error:
        reason = " ".join(str(error).split("ERROR: ", 1)[-1].split("\n", 1)[0].split())
        raise DefinitionError(f"{text!r} is no CEL expression: {reason}") from error
    return program


def as_context(event: EventInfo) -> dict[str, Any]:
    """Return an event as expressions see it: uri, partition, extra, time, source."""
    return {
        "uri": event.dataset,
        "partition": event.partition,
        "extra": event.extra,
        "time": event.time,
        "source": event.source,
        "id": event.event_id,
    }


def holds(text: str, event: EventInfo) -> str | None:
    """Evaluate a filter; return None when it is true, else why not.

    An expression that fails on an event, for example for a missing field, is not true.
    """
    try:
        value = compile_expression(text).execute({"event": as_context(event)})
    except (KeyError, TypeError, ValueError, RuntimeError, ArithmeticError, IndexError) as error:
        return f"{text} failed: {type(error).__name__}: {error}".split("\n", 1)[0][:500]
    return None if value is True else f"{text} is {value!r}"[:500]


def evaluate(
    expressions: Mapping[str, str], events: Sequence[EventInfo], partition: str | None
) -> dict[str, Any]:
    """Evaluate the expressions that give a run its params; times and bytes become JSON's strings.

    They see `events` (in order), `event` (the last one) and `partition`.

    Raises:
        InvalidInput: One fails, or gives what JSON cannot say; the text names it.
    """
    context: dict[str, Any] = {
        "events": [as_context(event) for event in events],
        "event": as_context(events[-1]) if events else None,
        "partition": partition,
    }
    values = {}
    for name, text in expressions.items():
        try:
            value = compile_expression(text).execute(context)
            values[name] = msgspec.to_builtins(value, str_keys=True)
        except (
            KeyError,
            TypeError,
            ValueError,
            RuntimeError,
            ArithmeticError,
            IndexError,
        ) as error:
            reason = f"{type(error).__name__}: {error}".split("\n", 1)[0][:300]
            raise InvalidInput(f"param {name!r}: {text} failed: {reason}") from error
    return values
