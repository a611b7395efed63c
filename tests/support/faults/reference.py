"""Reference model of the load: expected runs and results, without the product's own rules."""

from collections.abc import Iterable, Mapping
from typing import Any

CONDITIONS = {
    "row": "row/in",
    "line": "line/in",
    "split": "split/in",
    "left_leg": "split/left",
    "right_leg": "split/right",
    "meet": ("and", "left/done", "right/done"),
    "spread": "spread/in",
    "shaky": "shaky/in",
    "watch": ("or", ("and", "row/out", "line/out"), "shaky/out"),
}
"""DAG → its condition: a dataset's name, or `and`/`or` with sides."""


def datasets(condition) -> set[str]:
    """Return the names in a condition."""
    if isinstance(condition, str):
        return {condition}
    return set().union(*map(datasets, condition[1:]))


def _held(condition, waiting: Mapping[str, list]) -> set[str]:
    """Return the datasets of the sides that hold; empty when the whole does not."""
    if isinstance(condition, str):
        return {condition} if waiting[condition] else set()
    sides = [_held(side, waiting) for side in condition[1:]]
    if condition[0] == "and" and not all(sides):
        return set()
    return set().union(*sides)


def replay(condition, events: Iterable[tuple[int, str]]) -> tuple[list[frozenset[int]], set[int]]:
    """Decide about events in their order.

    Args:
        condition: See `CONDITIONS`.
        events: (event, dataset) in the order of the log.

    Returns:
        What each run consumes, in order, and what is left.
    """
    waiting: dict[str, list[int]] = {name: [] for name in datasets(condition)}
    firings = []
    for event, name in events:
        if name not in waiting:
            continue
        waiting[name].append(event)
        held = _held(condition, waiting)
        if held:
            firings.append(frozenset(each for place in held for each in waiting[place]))
            for place in held:
                waiting[place] = []
    return firings, {each for left in waiting.values() for each in left}


Results = dict[tuple[str, int], Any]


def outcome(dag_id: str, sums: Mapping[str, int]) -> tuple[Results, dict[str, int]]:
    """Return what a run's tasks give and emit.

    Args:
        dag_id: Its DAG.
        sums: Dataset → sum of what the consumed events carry.
    """
    return _OUTCOMES[dag_id](sums)


def _chain(*values) -> Results:
    return {(name, -1): value for name, value in zip(_ORDINALS, values, strict=True)}


_ORDINALS = ("first", "second", "third", "fourth")


def _row(sums):
    n = sums["row/in"]
    end = (n + 1) * 2 + 3
    return _chain(n + 1, (n + 1) * 2, end, end), {"row/out": end}


def _line(sums):
    n = sums["line/in"]
    end = (n * 3 + 1) * 2
    return _chain(n * 3, n * 3 + 1, end, end), {"line/out": end}


def _split(sums):
    n = sums["split/in"]
    return {("cut", -1): n}, {"split/left": n, "split/right": n * 10}


def _left(sums):
    n = sums["split/left"] + 1
    return {("pass_on", -1): n}, {"left/done": n}


def _right(sums):
    n = sums["split/right"] + 2
    return {("pass_on", -1): n}, {"right/done": n}


def _meet(sums):
    one, other = sums["left/done"], sums["right/done"]
    return {
        ("begin", -1): [one, other],
        ("upper", -1): one + 1,
        ("lower", -1): other * 2,
        ("end", -1): one + 1 + other * 2,
    }, {}


def _spread(sums):
    n = sums["spread/in"]
    parts = [n + place for place in range(2 + n % 4)]
    squares: Results = {("square", place): part * part for place, part in enumerate(parts)}
    return {("parts", -1): parts, ("gather", -1): sum(squares.values())} | squares, {}


def _shaky(sums):
    n = sums["shaky/in"]
    return {("stumble", -1): n, ("recover", -1): n - 1}, {"shaky/out": n - 1}


def _watch(sums):
    return {("add_up", -1): [sums.get(f"{name}/out", 0) for name in ("row", "line", "shaky")]}, {}


_OUTCOMES = {
    "row": _row,
    "line": _line,
    "split": _split,
    "left_leg": _left,
    "right_leg": _right,
    "meet": _meet,
    "spread": _spread,
    "shaky": _shaky,
    "watch": _watch,
}
