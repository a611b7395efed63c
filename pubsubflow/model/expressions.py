"""CEL expressions over events: the filters and computed params of schedules.

CEL is a small language without loops, see https://cel.dev; the interpreter is the library
`common-expression-language`.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import msgspec

from pubsubflow.errors import DefinitionError, InvalidInput
from pubsubflow.model.lazy_import import lazy_module
from pubsubflow.model.wire.messages import EventInfo

# The interpreter takes long to import, and most processes evaluate nothing.
cel = lazy_module("cel")


class _Program(Protocol):
    def execute(self, context: "Mapping[str, Any] | CelContext") -> Any: ...
    def variables(self) -> list[str]: ...


class CelContext(Protocol):
    """Variables in the interpreter's own form, shared by several expressions."""

    def add_variable(self, name: str, value: Any) -> None:
        """Add a variable; the conversion costs more than the evaluation of an expression."""


def new_cel_context() -> CelContext:
    """Return an empty context."""
    context: CelContext = cel.Context()
    return context


@lru_cache(maxsize=4096)
def compile_expression(text: str) -> _Program:
    """Return the compiled expression.

    Raises:
        DefinitionError: It is not CEL.
    """
    try:
        program: _Program = cel.compile(text)
    except ValueError as error:
        reason = " ".join(str(error).split("ERROR: ", 1)[-1].split("\n", 1)[0].split())
        raise DefinitionError(f"{text!r} is not a CEL expression: {reason}") from error
    return program


def event_variables(event: EventInfo) -> dict[str, Any]:
    """Return the variables of an event: uri, partition, extra, time, source, id."""
    return {
        "uri": event.dataset,
        "partition": event.partition,
        "extra": event.extra,
        "time": event.time,
        "source": event.source,
        "id": event.event_id,
    }


def filter_mismatch(text: str, event: EventInfo) -> str | None:
    """Evaluate a filter; return None when it is true, else the reason for the mismatch.

    An expression that fails on an event, for example because of a missing field, is not true.
    """
    try:
        value = compile_expression(text).execute({"event": event_variables(event)})
    except (KeyError, TypeError, ValueError, RuntimeError, ArithmeticError, IndexError) as error:
        return f"{text} failed: {type(error).__name__}: {error}".split("\n", 1)[0][:500]
    return None if value is True else f"{text} is {value!r}"[:500]


def evaluate(
    expressions: Mapping[str, str], events: Sequence[EventInfo], partition: str | None
) -> dict[str, Any]:
    """Evaluate the expressions of a run's params; times and bytes become strings, as in JSON.

    Their variables are `events` (in order), `event` (the last one) and `partition`.

    Raises:
        InvalidInput: One fails, or JSON cannot encode its value; the message names it.
    """
    context: dict[str, Any] = {
        "events": [event_variables(event) for event in events],
        "event": event_variables(events[-1]) if events else None,
        "partition": partition,
    }
    values = {}
    for name, text in expressions.items():
        try:
            value = compile_expression(text).execute(context)
            # CEL's own types, such as timestamps, must become JSON before they are stored.
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
