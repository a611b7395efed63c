"""Reads what `tools/recorder` wrote: functions by name, and which of them were idle.

A function is idle when it had nothing to do: it returned nothing or an empty value, and of its
statements only conditions, local assignments and calls of idle functions ran. Functions that return
`bool` or that can raise are checks, and never idle.
"""

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Function(NamedTuple):
    """A function: its file below the project, its line, its dotted name in the file."""

    path: str
    line: int
    name: str


class Step(NamedTuple):
    """A record, see `tools/recorder`."""

    kind: str
    process: str
    function: Function
    caller: Function | None
    line: int
    gave: bool


NO_FUNCTION = Function("", 0, "")


@cache
def functions_of(path: str) -> dict[Function, ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return the functions of a file, outer ones first."""
    found = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = prefix
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{prefix}{child.name}."
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                line = min([child.lineno, *(each.lineno for each in child.decorator_list)])
                found[Function(path, line, inner[:-1])] = child
            visit(child, inner)

    visit(ast.parse((ROOT / path).read_text()), "")
    return found


@cache
def function_at(place: str) -> Function:
    """Return the innermost function around `path:line`."""
    path, _, line = place.rpartition(":")
    around = Function(path, 0, "<module>")
    for function, node in functions_of(path).items():
        if function.line <= int(line) <= (node.end_lineno or 0):
            around = function
    return around


def step_of(line: str) -> Step:
    """Return a record from its line of text."""
    kind, process, *fields = line.split("\t")
    function = function_at(fields[0]) if fields else NO_FUNCTION
    caller = function_at(fields[1]) if kind == "C" and fields[1] != "-" else None
    number = int(fields[-1]) if kind in "CL" else 0
    return Step(kind, process, function, caller, number, fields[-1:] == ["value"])


def idle_functions(steps: list[Step]) -> set[Function]:
    """Return the functions that were entered and had nothing to do."""
    lines: dict[Function, set[int]] = defaultdict(set)
    calls: dict[Function, list[tuple[int, Function]]] = defaultdict(list)
    for step in steps:
        if step.kind == "L":
            lines[step.function].add(step.line)
        elif step.kind == "C" and step.caller is not None:
            calls[step.caller].append((step.line, step.function))
    idle = {step.function for step in steps if step.kind == "C"}
    idle -= {step.function for step in steps if step.gave}
    while working := {each for each in idle if works(each, lines[each], calls[each], idle)}:
        idle -= working
    return idle


def works(
    function: Function, lines: set[int], calls: list[tuple[int, Function]], idle: set[Function]
) -> bool:
    """Return whether one of the lines that ran does something, or the function is a check."""
    node = functions_of(function.path).get(function)
    if node is None or (isinstance(node.returns, ast.Name) and node.returns.id == "bool"):
        return True
    for statement in ast.walk(node):
        if isinstance(statement, ast.Raise):
            return True
        if not isinstance(statement, ast.stmt) or hasattr(statement, "body"):
            continue
        span = range(statement.lineno, (statement.end_lineno or 0) + 1)
        called = [callee for line, callee in calls if line in span]
        if any(callee not in idle for callee in called):
            return True
        if lines.intersection(span) and not called and acts(statement):
            return True
    return False


def acts(statement: ast.stmt) -> bool:
    """Return whether a statement does more than to name a value."""
    match statement:
        case ast.Assign(targets=targets):
            return not all(isinstance(target, ast.Name) for target in targets)
        case ast.AugAssign(target=target) | ast.AnnAssign(target=target):
            return not isinstance(target, ast.Name)
        case ast.Expr(value=value):
            return not isinstance(value, ast.Constant)
    return isinstance(statement, ast.Delete)
