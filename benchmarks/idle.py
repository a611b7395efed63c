"""Idle daemon: its start, its stop, and the CPU and memory it takes without work."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio

from benchmarks.figures import figure
from benchmarks.stack import Stack
from pubsubflow.embedded import EmbeddedServers

IDLE_SECONDS = 60
SETTLE_SECONDS = 60
"""After which a new database has been vacuumed and analyzed for the first time."""


async def _servers() -> dict[str, float]:
    """Start and stop both servers alone; return medians in seconds."""
    found: dict[str, list[float]] = {"first": [], "later": [], "stop": []}
    for _ in range(3):
        with tempfile.TemporaryDirectory(prefix="psf-bench-") as folder:
            for kind in ("first", "later", "later"):
                started = time.perf_counter()
                async with EmbeddedServers(Path(folder) / "home"):
                    ready = time.perf_counter()
                found[kind].append(ready - started)
                found["stop"].append(time.perf_counter() - ready)
    return {kind: round(statistics.median(values), 2) for kind, values in found.items()}


def run() -> list[dict[str, Any]]:
    """Measure."""
    servers = anyio.run(_servers)
    first, later, stops = [], [], []
    for _ in range(3):
        with Stack() as stack:
            first.append(stack.ready_seconds)
            stops.append(stack.stop())
            for _ in range(3):
                stack.start()
                later.append(stack.ready_seconds)
                stops.append(stack.stop())
    with Stack() as stack:
        stack.wait_run(stack.trigger("row_10"))
        time.sleep(SETTLE_SECONDS)
        before = stack.cpu_seconds()
        time.sleep(IDLE_SECONDS)
        share = 100 * (stack.cpu_seconds() - before) / IDLE_SECONDS
        memory = stack.memory_megabytes()
    return [
        figure("both servers, first start to ready", servers["first"], "s", target=2),
        figure("both servers, later start to ready", servers["later"], "s", target=0.6),
        figure("both servers, stop", servers["stop"], "s", target=0.5),
        figure("first `up` to ready", round(statistics.median(first), 2), "s", target=1.5),
        figure("later `up` to ready", round(statistics.median(later), 2), "s", target=0.5),
        figure("stop of all", round(statistics.median(stops), 2), "s", target=0.5),
        figure("idle, share of a core", round(share, 2), "%", target=0.35),
        figure(
            "idle, memory of all processes (PSS)", memory["total"], "MB", target=140, parts=memory
        ),
    ]
