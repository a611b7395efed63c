"""Misplaced tasks: what to do about one that is written where no DAG is open."""

import ast
import linecache
from collections.abc import Iterator
from typing import NamedTuple

from pubsubflow.authoring.source_location import SourceLocation


class _Place(NamedTuple):
    """A DAG of the file: the line that makes it, and how a task gets into it."""

    line: int
    target: str
    is_block: bool = True


def remedy(location: SourceLocation | None) -> str:
    """Return what to do about a task at a line where no DAG is open.

    The file is read for its DAGs: the next one below the line, else the last one above, is most
    likely the one that is meant.
    """
    places = sorted(_places(location)) if location else []
    if location is None or not places:
        return "write it inside `with DAG(…):` or an @dag function, or give it dag="
    line = location.line
    place = next((each for each in places if each.line > line), places[-1])
    if place.is_block:
        return f"move line {line} into {place.target} (line {place.line})"
    if place.line > line:
        return f"move line {line} below line {place.line} and give it dag={place.target}"
    return f"give line {line} dag={place.target}"


def _places(location: SourceLocation) -> Iterator[_Place]:
    try:
        tree = ast.parse("".join(linecache.getlines(location.file)))
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.With | ast.AsyncWith):
            if any(_name(item.context_expr) == "DAG" for item in node.items):
                yield _Place(node.lineno, "the block of `with DAG(…)`")
        elif isinstance(node, ast.FunctionDef):
            if any(_name(each) == "dag" for each in node.decorator_list):
                yield _Place(node.lineno, f"the function {node.name}")
        elif isinstance(node, ast.Assign) and _name(node.value) == "DAG":
            yield _Place(node.lineno, ast.unparse(node.targets[0]), is_block=False)


def _name(node: ast.expr) -> str:
    """Return the last part of the name that is called, or that stands there."""
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
