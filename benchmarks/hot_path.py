"""Hot path: from the end of one task to the first line of the next, and its like.

A hop is compared with its floor, the same round trips in a bare loop (`benchmarks.floor`).
"""

import statistics
import time
from typing import Any, Protocol

from benchmarks import floor
from benchmarks.figures import figure, spread
from benchmarks.stack import Moments, Stack, repeat

PAIRS = 200
BLOCK = 20
REPETITIONS = 7


class Triggered(Protocol):
    """What starts runs, and shows what their tasks log."""

    moments: Moments

    def trigger(self, dag_id: str) -> str:
        """Start a run; return its id."""


def hop(stack: Triggered, kind: str) -> float:
    """Return the milliseconds from the end of a task to the first line of the next DAG's."""
    stack.moments.clear()
    stack.trigger(f"pair_{kind}_up")
    lines = stack.moments.wait(4)
    at = {(name, phase): moment for moment, name, phase in lines}
    return (at[f"pair_{kind}_down.t", "start"] - at[f"pair_{kind}_up.t", "end"]) * 1000


def _outside(stack: Stack, kind: str) -> dict[str, float]:
    waits = []
    for _ in range(PAIRS):
        stack.moments.clear()
        posted = time.time()
        stack.emit(f"bench://outside/{kind}")
        lines = stack.moments.wait(2)
        waits.append(min(moment for moment, _, _ in lines) - posted)
    return spread([wait * 1000 for wait in waits[10:]])


def _chain(stack: Stack, kind: str) -> float:
    stack.moments.clear()
    stack.trigger(f"chain_{kind}_0")
    moments = [moment for moment, _, _ in stack.moments.wait(20)]
    return max(moments) - min(moments)


def _fan(stack: Stack) -> float:
    stack.moments.clear()
    posted = time.time()
    stack.emit("bench://fan")
    return max(moment for moment, _, _ in stack.moments.wait(200)) - posted


def _run(stack: Stack, dag_id: str) -> float:
    """From the POST to the run's end, as its sender sees it."""
    started = time.perf_counter()
    run = stack.wait_run(stack.trigger(dag_id))
    seconds = time.perf_counter() - started
    assert run["state"] == "success", run
    return seconds


def _fib(stack: Stack) -> tuple[float, float]:
    stack.moments.clear()
    run = stack.wait_run(stack.trigger("fib_33"))
    assert run["state"] == "success", run
    moments = [moment for moment, _, _ in stack.moments.wait(20)]
    started = time.perf_counter()
    for _ in range(10):
        _bare_fib(33)
    return max(moments) - min(moments), time.perf_counter() - started


def _bare_fib(number: int) -> int:
    return number if number < 2 else _bare_fib(number - 1) + _bare_fib(number - 2)


def _hops(stack: Stack) -> list[dict[str, Any]]:
    """Measure hops of both kinds and their floor, in turn, so that all see the same machine."""
    hops: dict[str, list[float]] = {"sync": [], "async": []}
    floors: list[float] = []
    with floor.opened(stack) as bare_hops:
        for block in range(PAIRS // BLOCK + 1):
            measured = {kind: [hop(stack, kind) for _ in range(BLOCK)] for kind in hops}
            bare = bare_hops(BLOCK)
            if block:  # the first one warms up
                floors += bare
                for kind, waits in measured.items():
                    hops[kind] += waits
    least = spread(floors)
    found = [figure("floor of a hop, p50", least["p50"], "ms", target=4, spread=least)]
    for kind, values in hops.items():
        waits = spread(values)
        name = f"task end → next DAG's first line, {{}}, {kind}"
        ratio = round(waits["p50"] / least["p50"], 2)
        found += [
            figure(
                name.format("p50"), waits["p50"], "ms", target=2.2, spread=waits, floor=least["p50"]
            ),
            figure(name.format("p99"), waits["p99"], "ms", target=20, floor=least["p99"]),
            figure(f"hop_floor_ratio, {kind}", ratio, "x", target=2),
        ]
    return found


def _posts(stack: Stack) -> list[dict[str, Any]]:
    found = []
    for kind in ("sync", "async"):
        waits = _outside(stack, kind)
        name = f"POST → first line, p50, {kind}"
        found.append(figure(name, waits["p50"], "ms", target=8, spread=waits))
    return found


def _graphs(stack: Stack) -> list[dict[str, Any]]:
    found = []
    for name, target, measure in (
        ("chain of 10 DAGs, sync", 20, lambda: _chain(stack, "sync")),
        ("chain of 10 DAGs, async", 20, lambda: _chain(stack, "async")),
        ("1 event → 100 DAGs, all finished", 300, lambda: _fan(stack)),
        ("40 tasks in a row, POST → end", 250, lambda: _run(stack, "row_40")),
        ("100 tasks side by side, POST → end", 250, lambda: _run(stack, "wide_100")),
    ):
        values = [value * 1000 for value in repeat(REPETITIONS, measure)]
        median = round(statistics.median(values), 1)
        found.append(figure(name, median, "ms", target=target, spread=spread(values, 1)))
    return found


def _computation(stack: Stack) -> dict[str, Any]:
    ratios = [ours / bare for ours, bare in (_fib(stack) for _ in range(3))]
    median = round(statistics.median(ratios), 3)
    name = "10 x fib(33) against a bare loop"
    return figure(name, median, "x", target=1.1, spread=spread(ratios, 3))


def run() -> list[dict[str, Any]]:
    """Measure."""
    with Stack() as stack:
        return [*_hops(stack), *_posts(stack), *_graphs(stack), _computation(stack)]
