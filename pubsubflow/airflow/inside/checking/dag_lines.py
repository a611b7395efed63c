"""The lines of a file at which its DAGs are made, as far as their ids are written there."""

import ast
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_MAKERS = frozenset({"DAG", "dag", "asset"})


def dag_lines(path: str) -> dict[str, int]:
    """Return DAG id → line; empty for what is not a file of Python."""
    with suppress(OSError, SyntaxError, ValueError):
        tree = ast.parse(Path(path).read_bytes())
        return dict(_found(tree))
    return {}


def _found(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if any(_maker(each) for each in node.decorator_list):
                yield node.name, node.lineno
        elif isinstance(node, ast.Call) and _maker(node):
            named = [each.value for each in node.keywords if each.arg == "dag_id"]
            for given in (*node.args[:1], *named):
                if isinstance(given, ast.Constant) and isinstance(given.value, str):
                    yield given.value, node.lineno


def _maker(node: ast.expr) -> bool:
    called = node.func if isinstance(node, ast.Call) else node
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return name in _MAKERS
