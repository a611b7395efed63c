"""Schedules read from Python text without running it: a small part of the language is known."""

import ast
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from pubsubflow.authoring.datasets import Dataset
from pubsubflow.authoring.schedules.expressions import Schedule
from pubsubflow.authoring.schedules.partitions import fan_out, fixed, identity, product, roll_up
from pubsubflow.authoring.schedules.policies import batch, debounce, each, latest, partitioned
from pubsubflow.authoring.schedules.timetables import Cron, Every, written_schedule
from pubsubflow.authoring.source_location import suggestion
from pubsubflow.errors import DefinitionError, InvalidInput
from pubsubflow.model.schedule.conditions import ScheduleSpec

MAX_CHARACTERS = 8000
MAX_DEPTH = 40
"""How deep brackets and calls may be nested."""


def _dataset(uri: Any, **_options: Any) -> Dataset:
    """Return a dataset; what it may declare beside its URI starts no run."""
    return Dataset(uri)


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "Cron": Cron,
    "Dataset": _dataset,
    "Every": Every,
    "batch": batch,
    "debounce": debounce,
    "each": each,
    "fan_out": fan_out,
    "fixed": fixed,
    "latest": latest,
    "partitioned": partitioned,
    "product": product,
    "roll_up": roll_up,
    "timedelta": timedelta,
}
_METHODS = ("at_least", "or_after", "where", "within")
_DEFINERS = ("DAG", "dag")
_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda left, right: left + right,
    ast.Sub: lambda left, right: left - right,
    ast.Mult: lambda left, right: left * right,
}


def read_schedule(text: str) -> ScheduleSpec:
    """Return the schedule of a text: an expression, lines that name datasets before it, or `@dag`.

    Names, numbers, strings, lists, dicts, `&`, `|`, the functions of schedules and `timedelta` are
    known, and nothing else: no code of the text runs.

    Args:
        text: For example `Dataset("s3://lake/orders") & Cron("0 6 * * *")`.

    Raises:
        InvalidInput: It is too long, not Python, or cannot be read as a schedule.
    """
    if len(text) > MAX_CHARACTERS:
        raise InvalidInput(f"the schedule has more than {MAX_CHARACTERS} characters")
    try:
        lines = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        place = f"line {line}: " if line else ""
        raise InvalidInput(f"{place}it is not Python: {getattr(error, 'msg', error)}") from error
    reader = _Reader()
    found: Any = None
    # Lines that give names give no schedule, so the last one that does is the one that is meant.
    for line in lines:
        value = reader.statement(line)
        found = value if value is not None else found
    if found is None:
        raise InvalidInput("it ends without a schedule: write one, such as orders & rates")
    try:
        return written_schedule(found).compiled()
    except DefinitionError as error:
        raise InvalidInput(error.message) from error


class _Reader:
    """Evaluates what is known; everything else is refused with its line."""

    def __init__(self) -> None:
        self._names: dict[str, Any] = {"identity": identity}

    def statement(self, line: ast.stmt) -> Any:
        """Return the schedule that a line gives; None if it gives none."""
        match line:
            case ast.Import() | ast.ImportFrom():
                return None
            case ast.Assign(targets=[target], value=value):
                return self._assign(target, value)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                return self._assign(target, value)
            case ast.Expr(value=value):
                return self._value(value, 0)
            case (
                ast.FunctionDef(decorator_list=makers) | ast.AsyncFunctionDef(decorator_list=makers)
            ):
                return self._definition(makers)
            case ast.With(items=items):
                return self._definition([item.context_expr for item in items])
        raise _unknown(line)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        found = self._value(value, 0)
        match target:
            case ast.Name(id=name):
                self._names[name] = found
            case ast.Tuple(elts=targets) if isinstance(found, list) and len(found) == len(targets):
                for each, one in zip(targets, found, strict=True):
                    if not isinstance(each, ast.Name):
                        raise _unknown(each)
                    self._names[each.id] = one
            case _:
                raise _unknown(target)

    def _definition(self, makers: list[ast.expr]) -> Any:
        """Return the `schedule=` of an `@dag` or `DAG(…)`."""
        for maker in makers:
            if isinstance(maker, ast.Call) and isinstance(maker.func, ast.Name):
                for keyword in maker.keywords:
                    if maker.func.id in _DEFINERS and keyword.arg == "schedule":
                        return self._value(keyword.value, 0)
        return None

    def _value(self, node: ast.expr, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise InvalidInput(f"line {node.lineno}: it is nested deeper than {MAX_DEPTH}")
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | None as value):
                found: Any = value
            case ast.Name(id=name):
                found = self._named(node, name)
            case ast.List(elts=items) | ast.Tuple(elts=items):
                found = [self._value(item, depth + 1) for item in items]
            case ast.Dict():
                found = self._dict(node, depth)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                found = -self._number(operand, depth + 1)
            case ast.BinOp():
                found = self._joined(node, depth)
            case ast.Call():
                found = self._call(node, depth)
            case _:
                raise _unknown(node)
        return found

    def _dict(self, node: ast.Dict, depth: int) -> dict[Any, Any]:
        found = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                raise _unknown(node)
            found[self._value(key, depth + 1)] = self._value(value, depth + 1)
        return found

    def _named(self, node: ast.expr, name: str) -> Any:
        if name in self._names:
            return self._names[name]
        if name in _FUNCTIONS:
            raise InvalidInput(f"line {node.lineno}: {name} is a function: write {name}(…)")
        raise InvalidInput(
            f"line {node.lineno}: {name!r} is not defined{suggestion(name, self._names)}: write "
            f'{name} = Dataset("s3://…") in a line before'
        )

    def _number(self, node: ast.expr, depth: int) -> Any:
        found = self._value(node, depth)
        if isinstance(found, bool) or not isinstance(found, int | float | timedelta):
            raise _unknown(node)
        return found

    def _joined(self, node: ast.BinOp, depth: int) -> Any:
        if isinstance(node.op, ast.BitAnd | ast.BitOr):
            left, right = (self._value(side, depth + 1) for side in (node.left, node.right))
            if not isinstance(left, Schedule) and not isinstance(right, Schedule):
                raise InvalidInput(
                    f"line {node.lineno}: & and | join datasets and timetables, such as "
                    'Dataset("s3://lake/orders") & Cron("0 6 * * *")'
                )
            return _made(
                node, lambda: left & right if isinstance(node.op, ast.BitAnd) else left | right
            )
        # No powers: a text of 20 characters must not make a number that fills the memory.
        calculate = _ARITHMETIC.get(type(node.op))
        if calculate is None:
            raise _unknown(node)
        left, right = self._number(node.left, depth + 1), self._number(node.right, depth + 1)
        return _made(node, lambda: calculate(left, right))

    def _call(self, node: ast.Call, depth: int) -> Any:
        positional = [self._value(each, depth + 1) for each in node.args]
        named = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise _unknown(node)
            named[keyword.arg] = self._value(keyword.value, depth + 1)
        match node.func:
            case ast.Name(id=name) if name in _FUNCTIONS:
                called = _FUNCTIONS[name]
            case ast.Name(id=name):
                hint = suggestion(name, _FUNCTIONS)
                raise InvalidInput(f"line {node.lineno}: {name}() is unknown{hint}")
            case ast.Attribute(value=ast.Name(id="Dataset"), attr="match"):
                called = Dataset.match
            case ast.Attribute(value=owner, attr=name) if name in _METHODS:
                schedule = self._value(owner, depth + 1)
                if not isinstance(schedule, Schedule):
                    raise _unknown(node)
                called = getattr(schedule, name)
            case _:
                raise _unknown(node)
        return _made(node, lambda: called(*positional, **named))


def _made(node: ast.expr, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except DefinitionError as error:
        raise InvalidInput(f"line {node.lineno}: {error.message}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"line {node.lineno}: {error}") from error


def _unknown(node: ast.stmt | ast.expr) -> InvalidInput:
    text = ast.unparse(node).split("\n", 1)[0][:80]
    return InvalidInput(
        f"line {node.lineno}: {text} is not understood here: datasets, Cron, Every, &, |, within, "
        "at_least, where, or_after, batch, debounce, latest and partitioned are"
    )
