"""Checks of CEL expressions where users write them: what can never be evaluated is refused there.

The interpreter has no checker of types. In its place stand the names of functions and of an event's
fields, and a trial on events as they come.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

from pubsubflow.errors import DefinitionError
from pubsubflow.model.cel.expressions import Expression, compile_expression, event_variables
from pubsubflow.model.wire.messages import EventInfo

_TYPES = frozenset(
    "bool bytes double int list map null_type optional string type uint".split()  # noqa: SIM905
)
_FUNCTIONS = frozenset(
    """
    bytes contains double duration dyn endsWith getDate getDayOfMonth getDayOfWeek getDayOfYear
    getFullYear getHours getMilliseconds getMinutes getMonth getSeconds hasValue int matches none of
    ofNonZeroValue or orValue size startsWith string timestamp type uint value
    """.split()  # noqa: SIM905
)
"""Functions of the interpreter; operators have names that are not identifiers."""

_TEXT = re.compile(r"""[rR]?("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')""", re.DOTALL)
_MACRO = re.compile(
    r"(?P<list>\w+)\s*\.\s*(?:map|filter|all|exists|exists_one|existsOne)\s*\(\s*(?P<name>\w+)\s*,"
)
# Variables that macros bind; the interpreter reports them as free.
_BOUND = re.compile(r"[(,]\s*([A-Za-z_]\w*)\s*,")
_NEVER = ("Undefined variable or function", "No such overload", "Unsupported operation")
_SOME = EventInfo("id", "s3://lake/x", {}, "p", datetime(2026, 1, 1, tzinfo=UTC), "api")
_FIELDS = frozenset(event_variables(_SOME))


def check_expression(text: str, names: Sequence[str], *, condition: bool = False) -> None:
    """Check that an expression can be evaluated.

    Args:
        text: The expression.
        names: The variables it may use: of events `event`, `events` and `partition`; any others may
            have any value.
        condition: Whether it must be true for something to happen.

    Raises:
        DefinitionError: It is not CEL, or uses a variable, a function or a field of events that
            does not exist, or one for what it is not made, or is a condition and never a bool.
    """
    expression = compile_expression(text)
    bound = set(_BOUND.findall(text))
    for variable in expression.variables():
        if variable not in _TYPES and variable not in bound and variable not in names:
            known = " and ".join(names)
            raise DefinitionError(f"{text!r} uses {variable!r}; the variables here are {known}")
    for function in expression.functions():
        if function.isidentifier() and not function.startswith("_"):
            _check_name(text, function, _FUNCTIONS, "function")
    if "event" in names:
        for field in _event_fields(text):
            _check_name(text, field, _FIELDS, "field of events")
        _try(expression, condition=condition)


def _check_name(text: str, name: str, known: frozenset[str], kind: str) -> None:
    if name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f": {', '.join(sorted(known))}"
        raise DefinitionError(f"{text!r} uses {name!r}, which is not a {kind}{hint}")


def _event_fields(text: str) -> Iterator[str]:
    """Yield the fields of events that an expression names."""
    yield from re.findall(r"""\bevent\s*\[\s*["'](\w+)["']\s*\]""", text)
    bare = _TEXT.sub('""', text)
    yield from re.findall(r"\bevents\s*\[[^\]]*\]\s*\.\s*(\w+)\b(?!\s*\()", bare)
    bound = {each["name"]: each["list"] == "events" for each in _MACRO.finditer(bare)}
    events = [name for name, is_event in ({"event": True} | bound).items() if is_event]
    for name in events:
        yield from re.findall(rf"(?<![\w.]){name}\s*\.\s*(\w+)\b(?!\s*\()", bare)


def _try(expression: Expression, *, condition: bool) -> None:
    """Evaluate an expression for events with and without a partition.

    Raises:
        DefinitionError: It fails for both because of a type, or has another value than a bool.
    """
    faults = []
    for partition in ("p", None):
        event: dict[str, Any] = event_variables(_SOME) | {"partition": partition}
        context = {"event": event, "events": [event], "partition": partition}
        try:
            value = expression.execute(context)
        except (KeyError, ValueError, ArithmeticError, IndexError):
            return  # what it reads may be there in other events
        except (TypeError, RuntimeError) as error:
            reason = str(error).split(". ", 1)[0].split("\n", 1)[0]
            if not reason.startswith(_NEVER) and "not a valid regex" not in reason:
                return
            faults.append(f"can never be evaluated: {reason.split(':', 1)[-1].strip()[:200]}")
        else:
            # An event's extra may hold a bool; all else has its type for good.
            if not condition or isinstance(value, bool) or "extra" in expression.text:
                return
            faults.append(f"is never true: it is {value!r}"[:200])
    raise DefinitionError(f"{expression.text!r} {faults[0]}")
