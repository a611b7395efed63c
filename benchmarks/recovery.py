"""Recovery: a whole daemon dies by signal 9 under events and tasks, its servers with it.

It is the kill of the side-by-side suite (`benchmarks.peers`). The floor is the same without the
product: NATS and Postgres alone, killed and started again.
"""

import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio
import psutil

from benchmarks.figures import figure
from benchmarks.peers.adapters.pubsubflow import Pubsubflow
from benchmarks.peers.counts import FULL
from benchmarks.peers.kills import LOST
from benchmarks.peers.suite import measure
from pubsubflow.embedded import EmbeddedServers

TARGETS = {
    LOST: 0,
    "runs doubled": 0,
    "kill -9 → first line of a task": 3,
    "kill -9 → all events of before worked off": 4,
}
_COUNTED = {LOST: "events", "runs doubled": "runs"}
_FLOOR_ROUNDS = 3


async def _servers_again(home: Path) -> float:
    """Return the seconds from a kill of both servers until both are ready again."""
    async with EmbeddedServers(home) as servers:
        pids = servers.nats_pid, servers.postgres_pid
        for pid in pids:
            if pid is not None:
                psutil.Process(pid).send_signal(signal.SIGKILL)
        killed = time.perf_counter()
    async with EmbeddedServers(home):
        return time.perf_counter() - killed


def _floor() -> float:
    with tempfile.TemporaryDirectory(prefix="psf-bench-") as folder:
        home = Path(folder) / "home"
        return statistics.median(anyio.run(_servers_again, home) for _ in range(_FLOOR_ROUNDS))


def run() -> list[dict[str, Any]]:
    """Measure."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        found = measure(Pubsubflow, "default", ["kill"], FULL, cache=folder, results=folder)
    if found.failed:
        raise RuntimeError(f"the kill failed: {found.failed['kill']}")
    floor = round(_floor(), 3)
    return [
        figure(
            each.name,
            each.value,
            each.unit or _COUNTED[each.name],
            target=TARGETS[each.name],
            note=each.note,
            greatest=each.greatest,
            **({"floor": floor} if each.unit == "s" else {}),
        )
        for each in found.figures
        if each.name in TARGETS
    ]
