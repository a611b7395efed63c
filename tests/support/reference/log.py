"""Reference model of a log: which runs fire, and what each consumes."""

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Expected:
    """Firings of one DAG: (event that made it fire, consumed (event, input)), and what is left."""

    firings: list[tuple[int, frozenset[tuple[int, int]]]] = field(default_factory=list)
    left: set[tuple[int, int]] = field(default_factory=set)


def replay(expression: str, log: Iterable[tuple[int, str]]) -> Expected:
    """Apply events (number, dataset) to an expression such as `(a & b) | c`, one by one."""
    tree = ast.parse(expression, mode="eval").body
    names = [node.id for node in _leaves(tree)]
    held: list[list[int]] = [[] for _ in names]
    expected = Expected()
    for number, dataset in log:
        for index, name in enumerate(names):
            if name == dataset:
                held[index].append(number)
        indexes = _holding(tree, [bool(events) for events in held], iter(range(len(names))))
        if dataset in names and indexes:
            consumed = {(event, index) for index in indexes for event in held[index]}
            expected.firings.append((number, frozenset(consumed)))
            for index in indexes:
                held[index].clear()
    expected.left = {(event, index) for index, events in enumerate(held) for event in events}
    return expected


def _leaves(tree: ast.expr) -> list[ast.Name]:
    if isinstance(tree, ast.Name):
        return [tree]
    assert isinstance(tree, ast.BinOp)
    return _leaves(tree.left) + _leaves(tree.right)


def _holding(tree: ast.expr, filled: list[bool], indexes) -> set[int]:
    """Return the inputs of the sides that hold; none when the whole does not."""
    if isinstance(tree, ast.Name):
        index = next(indexes)
        return {index} if filled[index] else set()
    assert isinstance(tree, ast.BinOp)
    left = _holding(tree.left, filled, indexes)
    right = _holding(tree.right, filled, indexes)
    if isinstance(tree.op, ast.BitAnd) and not (left and right):
        return set()
    return left | right
