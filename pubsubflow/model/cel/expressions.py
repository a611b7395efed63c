"""CEL expressions over events: the filters and computed params of schedules.

CEL is a small language without loops, see https://cel.dev; the interpreter is the library
`common-expression-language`.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import msgspec

from pubsubflow.errors import DefinitionError, InvalidInput
from pubsubflow.model.cel.process import ExpressionProcess
from pubsubflow.model.json_values import json_fault
from pubsubflow.model.lazy_import import lazy_module
from pubsubflow.model.wire.messages import EventInfo

# The interpreter takes long to import, and most processes evaluate nothing.
cel = lazy_module("cel")


MAX_CHARACTERS = 4000
"""The longest expression; the interpreter's recursion breaks the process at about 20,000."""

MAX_NESTED = 3
"""How many of `map`, `filter`, `all`, `exists` and `exists_one` an expression may nest."""

# Steps that are taken here; more are taken in a process of their own, with a limit of time.
_FEW_STEPS = 250_000
_PIECE = re.compile(
    r"""r?"(?:\\.|[^"\\])*"|r?'(?:\\.|[^'\\])*'|"""
    r"""\.\s*(?:map|filter|all|exists|exists_one|existsOne)\s*\(|[()]""",
    re.DOTALL,
)
_apart = ExpressionProcess()


class _Program(Protocol):
    def execute(self, context: "Mapping[str, Any] | _NativeContext") -> Any: ...
    def variables(self) -> list[str]: ...
    def functions(self) -> list[str]: ...


class _NativeContext(Protocol):
    def add_variable(self, name: str, value: Any) -> None: ...


class CelContext:
    """Variables in the interpreter's own form, shared by several expressions.

    Attributes:
        values: The variables by name.
        native: The same for the interpreter.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.native: _NativeContext = cel.Context()

    def add_variable(self, name: str, value: Any) -> None:
        """Add a variable; the conversion costs more than the evaluation of an expression."""
        self.native.add_variable(name, value)
        self.values[name] = value


class Expression:
    """A compiled expression.

    Attributes:
        text: As its user wrote it.
        macros: How often `map`, `filter`, `all`, `exists` and `exists_one` stand in it.
        nested: How deep they are nested.
    """

    def __init__(self, text: str, program: _Program) -> None:
        self.text = text
        self.macros, self.nested = _count_macros(text)
        self._program = program

    def variables(self) -> list[str]:
        """Return the names that it uses."""
        return self._program.variables()

    def functions(self) -> list[str]:
        """Return the names of the functions and operators that it calls."""
        return self._program.functions()

    def execute(self, context: Mapping[str, Any] | CelContext) -> Any:
        """Return its value.

        Raises:
            KeyError, TypeError, ValueError, RuntimeError, ArithmeticError, IndexError: It fails.
            ExpressionLimitError: It takes too long; a `ValueError`.
        """
        if self.macros:
            values = context.values if isinstance(context, CelContext) else context
            if self._steps(values) > _FEW_STEPS:
                return _apart.evaluate(self.text, values)
        return self._program.execute(context.native if isinstance(context, CelContext) else context)

    def _steps(self, values: Mapping[str, Any]) -> int:
        """Return an upper bound of the steps: the interpreter copies a list that it builds."""
        # Lists grow by concatenation, or stand in the text.
        longest = _longest(values) * (1 + self.text.count("+")) + self.text.count(",")
        return int(self.macros * longest ** (2 * self.nested))


def _longest(values: Any) -> int:
    """Return the length of the longest list or object within a value."""
    longest, rest = 1, [values]
    while rest:
        value = rest.pop()
        if isinstance(value, Mapping):
            longest = max(longest, len(value))
            rest.extend(value.values())
        elif isinstance(value, list | tuple):
            longest = max(longest, len(value))
            rest.extend(value)
    return longest


def _count_macros(text: str) -> tuple[int, int]:
    """Return how many macros there are, and how deep they are nested."""
    opened: list[bool] = []
    macros = nested = 0
    for piece in _PIECE.findall(text):
        if piece == ")":
            if opened:
                opened.pop()
        elif piece.endswith("("):
            opened.append(piece != "(")
            if opened[-1]:
                macros += 1
                nested = max(nested, sum(opened))
    return macros, nested


def new_cel_context() -> CelContext:
    """Return an empty context."""
    return CelContext()


@lru_cache(maxsize=4096)
def compile_expression(text: str) -> Expression:
    """Return the compiled expression.

    Raises:
        DefinitionError: It is not CEL, longer than `MAX_CHARACTERS`, or nests more than
            `MAX_NESTED` macros.
    """
    if len(text) > MAX_CHARACTERS:
        raise DefinitionError(
            f"the CEL expression {text[:40]!r}… has {len(text)} characters; at most "
            f"{MAX_CHARACTERS} are allowed"
        )
    try:
        expression = Expression(text, cel.compile(text))
    except ValueError as error:
        reason = " ".join(str(error).split("ERROR: ", 1)[-1].split("\n", 1)[0].split())
        raise DefinitionError(f"{text!r} is not a CEL expression: {reason}") from error
    if expression.nested > MAX_NESTED:
        raise DefinitionError(
            f"{text!r} nests {expression.nested} of map, filter, all and exists; at most "
            f"{MAX_NESTED} are allowed"
        )
    return expression


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
            fault = json_fault(values[name], "its value")
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
        if fault is not None:
            raise InvalidInput(f"param {name!r}: {text} failed: {fault}")
    return values
