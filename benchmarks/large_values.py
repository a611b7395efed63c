"""Large results and long output: what they take, and how late other runs are beside them.

Floors: the same bytes through a file that is flushed to the disk.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import figure, spread
from benchmarks.stack import Stack, repeat

BYTES = 900_000
LINES = 100_000
ROUNDS = 20
_LINE = "line {:06d} of a task that has much to say about its work\n"
_DAGS = f"""
import os
import time

from pubsubflow import DAG, task


def mark(phase):
    with open(os.environ["BENCH_LOG"], "a") as log:
        log.write(f"{{time.time():.6f}} large {{phase}}\\n")


with DAG("large_result", max_active_runs=100):

    @task
    def make() -> str:
        text = "x" * {BYTES}
        mark("end")
        return text

    @task
    def take(text: str) -> None:
        mark("start")
        assert len(text) == {BYTES}

    take(make())

with DAG("long_output", max_active_runs=100):

    @task
    def talk() -> None:
        for number in range({LINES}):
            print({_LINE.rstrip()!r}.format(number))

    talk()

with DAG("neighbour", max_active_runs=100):

    @task
    async def nothing() -> None:
        pass

    nothing()
"""


def _file_seconds(data: bytes) -> float:
    """Return the seconds that bytes take into a file, onto the disk, and out again."""
    with tempfile.NamedTemporaryFile() as file:
        started = time.perf_counter()
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        assert file.read() == data
        return time.perf_counter() - started


def _hand_over(stack: Stack) -> float:
    """Return the milliseconds from the end of a task to the next one, which gets its result."""
    stack.moments.clear()
    stack.trigger("large_result")
    at = {phase: moment for moment, _, phase in stack.moments.wait(2)}
    return 1000 * (at["start"] - at["end"])


def _run_seconds(stack: Stack, dag_id: str) -> float:
    started = time.perf_counter()
    run = stack.wait_run(stack.trigger(dag_id))
    assert run["state"] == "success", run
    return time.perf_counter() - started


def _beside(stack: Stack) -> list[float]:
    """Return how long runs take while another one talks, in milliseconds."""
    talking = stack.trigger("long_output")
    waits = []
    while stack.get(f"/runs/{talking}")["state"] in ("queued", "running") or not waits:
        waits.append(1000 * _run_seconds(stack, "neighbour"))
    return waits


def run() -> list[dict[str, Any]]:
    """Measure."""
    output = "".join(map(_LINE.format, range(LINES))).encode()
    with tempfile.TemporaryDirectory(prefix="psf-bench-") as text:
        (Path(text) / "large.py").write_text(_DAGS)
        with Stack(Path(text)) as stack:
            hops = spread(repeat(ROUNDS, lambda: _hand_over(stack)))
            talks = spread(repeat(3, lambda: _run_seconds(stack, "long_output")))
            alone = spread([1000 * _run_seconds(stack, "neighbour") for _ in range(ROUNDS)])
            beside = spread(_beside(stack))
            memory = stack.memory_megabytes()["total"]
    result = spread([1000 * _file_seconds(b"x" * BYTES) for _ in range(ROUNDS)])["p50"]
    lines = spread([_file_seconds(output) for _ in range(3)], 3)["p50"]
    name = f"a result of {BYTES:,} bytes: task end → next task's first line, p50"
    quiet = "a run beside a task that prints without pause, p99"
    return [
        figure(name, hops["p50"], "ms", target=60, spread=hops, floor=result),
        figure(f"{LINES:,} lines of output, POST → end", talks["p50"], "s", target=4, floor=lines),
        figure(quiet, beside["p99"], "ms", target=250, spread=beside, floor=alone["p50"]),
        figure("memory after it, all processes (PSS)", memory, "MB", target=400),
    ]
