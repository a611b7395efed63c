"""From the end of one task to the first line of the next, and other waits that users feel."""

import os
import statistics
import time
from typing import Any

from benchmarks.figures import figure, spread
from benchmarks.stack import Stack, repeat

PAIRS = 200
REPETITIONS = 7


def _pair(stack: Stack, kind: str) -> dict[str, float]:
    waits = []
    for _ in range(PAIRS):
        stack.moments.clear()
        stack.trigger(f"pair_{kind}_up")
        lines = stack.moments.wait(4)
        at = {(name, phase): moment for moment, name, phase in lines}
        waits.append(at[f"pair_{kind}_down.t", "start"] - at[f"pair_{kind}_up.t", "end"])
    return spread([wait * 1000 for wait in waits[10:]])


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
    """From the POST to the run's end, as the one who asked sees it."""
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


def run() -> list[dict[str, Any]]:
    """Measure."""
    found = []
    with Stack() as stack:
        for kind in ("sync", "async"):
            waits = _pair(stack, kind)
            found.append(
                figure(
                    f"task end → next DAG's first line, p50, {kind}",
                    waits["p50"],
                    "ms",
                    target=5,
                    spread=waits,
                )
            )
            found.append(
                figure(
                    f"task end → next DAG's first line, p99, {kind}", waits["p99"], "ms", target=20
                )
            )
            waits = _outside(stack, kind)
            found.append(
                figure(
                    f"POST → first line, p50, {kind}",
                    waits["p50"],
                    "ms",
                    target=8,
                    spread=waits,
                )
            )
        for name, target, measure in (
            ("chain of 10 DAGs, sync", 80, lambda: _chain(stack, "sync")),
            ("chain of 10 DAGs, async", 80, lambda: _chain(stack, "async")),
            ("1 event → 100 DAGs, all finished", 300, lambda: _fan(stack)),
            ("40 tasks in a row, POST → end", 250, lambda: _run(stack, "row_40")),
            ("100 tasks side by side, POST → end", 250, lambda: _run(stack, "wide_100")),
        ):
            values = [value * 1000 for value in repeat(REPETITIONS, measure)]
            found.append(
                figure(
                    name,
                    round(statistics.median(values), 1),
                    "ms",
                    target=target,
                    spread=spread(values, 1),
                )
            )
        ratios = []
        for _ in range(3):
            ours, bare = _fib(stack)
            ratios.append(ours / bare)
        found.append(
            figure(
                "10 x fib(33) against a bare loop",
                round(statistics.median(ratios), 3),
                "x",
                target=1.1,
                spread=spread(ratios, 3),
            )
        )
    return found


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    for each in run():
        print(each)
