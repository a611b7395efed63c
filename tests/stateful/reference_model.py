"""What must come out, in plain lines: given the log, which runs fire and what each consumes."""

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Expected:
    """Firings of one DAG: (event that made it fire, consumed (event, place)), and what is left."""

    firings: list[tuple[int, frozenset[tuple[int, int]]]] = field(default_factory=list)
    left: set[tuple[int, int]] = field(default_factory=set)


def replay(expression: str, log: Iterable[tuple[int, str]]) -> Expected:
    """Let events (number, dataset) through an expression such as `(a & b) | c`, one by one."""
    tree = ast.parse(expression, mode="eval").body
    names = [node.id for node in _leaves(tree)]
    held: list[list[int]] = [[] for _ in names]
    expected = Expected()
    for number, dataset in log:
        for place, name in enumerate(names):
            if name == dataset:
                held[place].append(number)
        places = _holding(tree, [bool(events) for events in held], iter(range(len(names))))
        if dataset in names and places:
            consumed = {(event, place) for place in places for event in held[place]}
            expected.firings.append((number, frozenset(consumed)))
            for place in places:
                held[place].clear()
    expected.left = {(event, place) for place, events in enumerate(held) for event in events}
    return expected


def _leaves(tree: ast.expr) -> list[ast.Name]:
    if isinstance(tree, ast.Name):
        return [tree]
    assert isinstance(tree, ast.BinOp)
    return _leaves(tree.left) + _leaves(tree.right)


def _holding(tree: ast.expr, filled: list[bool], places) -> set[int]:
    """Return the places of the sides that hold; none when the whole does not."""
    if isinstance(tree, ast.Name):
        place = next(places)
        return {place} if filled[place] else set()
    assert isinstance(tree, ast.BinOp)
    left = _holding(tree.left, filled, places)
    right = _holding(tree.right, filled, places)
    if isinstance(tree.op, ast.BitAnd) and not (left and right):
        return set()
    return left | right
