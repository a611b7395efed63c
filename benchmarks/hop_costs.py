"""Costs of hops: CPU, wake-ups, WAL; hops of cold caches; latencies and GC pauses under load.

Wall times of a shared machine vary more than a regression; what a hop costs varies little.
"""

import asyncio
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from benchmarks import floor
from benchmarks.figures import figure, quantile, spread
from benchmarks.hot_path import hop
from benchmarks.stack import Stack

CHAINS = 30
SINGLE = 200
APART_SECONDS = 0.05
RATE = 500
LOAD_SECONDS = 20
WARM_UP_SECONDS = 2
_BATCH = 5
_PAUSES = Path(__file__).parent / "gc_pauses"
_LATE = """
import os
import time

from pubsubflow import DAG, Context, Dataset, task

source = Dataset("bench://timed")
with DAG("timed", schedule=source, max_active_runs=10000):

    @task
    async def note(ctx: Context) -> None:
        now = time.time()
        for event in ctx.events[source]:
            with open(os.environ["BENCH_LOG"], "a") as log:
                log.write(f"{now - event.extra['at']:.6f} late start\\n")

    note()
"""


class Costs:
    """CPU milliseconds, voluntary switches and kilobytes of WAL so far."""

    def __init__(self, stack: Stack) -> None:
        cpu = 1000 * stack.cpu_seconds()
        wal = asyncio.run(_wal(stack.dsn)) / 1024
        self.values = cpu, _switches(stack.processes()), wal

    def since(self, before: "Costs", hops: int) -> list[float]:
        """Return the costs of a hop."""
        pairs = zip(self.values, before.values, strict=True)
        return [round((now - then) / hops, 2) for now, then in pairs]


def _switches(processes: list[psutil.Process]) -> float:
    """Return how often all threads of processes have waited."""
    total = 0
    for process in processes:
        for thread in Path(f"/proc/{process.pid}/task").glob("*/status"):
            try:
                text = thread.read_text()
            except OSError:  # it has ended
                continue
            total += int(text.rpartition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return total


async def _wal(dsn: str) -> float:
    connection = await asyncpg.connect(dsn)
    try:
        query = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float"
        return float(await connection.fetchval(query))
    finally:
        await connection.close()


def _chains(stack: Stack, kind: str) -> list[float]:
    """Return the CPU, the switches and the WAL of a hop, of chains of ten."""

    def chain() -> None:
        stack.moments.clear()
        stack.trigger(f"chain_{kind}_0")
        stack.moments.wait(20)

    chain()
    before = Costs(stack)
    for _ in range(CHAINS):
        chain()
    return Costs(stack).since(before, 10 * CHAINS)


def _single(stack: Stack) -> tuple[dict[str, float], dict[str, float]]:
    """Return the milliseconds of hops with pauses between them, and of their floor."""
    hops, floors = [], []
    with floor.opened(stack) as bare_hops:
        for _ in range(SINGLE):
            time.sleep(APART_SECONDS)
            hops.append(hop(stack, "sync"))
            time.sleep(APART_SECONDS)
            floors += bare_hops(1)
    return spread(hops), spread(floors)


def _under_load(stack: Stack, seconds: int) -> list[float]:
    """Return the milliseconds from each event's post to the first line of its task."""
    count = RATE * seconds
    stack.moments.clear()

    def send() -> None:
        due = time.monotonic()
        for _ in range(count // _BATCH):
            time.sleep(max(0.0, due - time.monotonic()))
            extra = {"at": time.time()}
            events = [{"dataset": "bench://timed", "extra": extra} for _ in range(_BATCH)]
            stack.post("/datasets/events", events)
            due += _BATCH / RATE

    sender = threading.Thread(target=send)
    sender.start()
    try:
        return [1000 * late for late, _, _ in stack.moments.wait(count, seconds + 120)]
    finally:
        sender.join()


def _loaded() -> tuple[list[float], list[float]]:
    """Return the milliseconds of events under load, and of the daemon's pauses meanwhile."""
    with tempfile.TemporaryDirectory(prefix="psf-bench-") as text:
        folder = Path(text)
        dags, pauses = folder / "dags", folder / "pauses"
        dags.mkdir()
        (dags / "timed.py").write_text(_LATE)
        pauses.touch()
        environ = {"PYTHONPATH": str(_PAUSES), "BENCH_PAUSES": str(pauses)}
        with Stack(dags, environ=environ) as stack:
            # A hundred events that come while code is loaded would be the slowest hundredth.
            _under_load(stack, WARM_UP_SECONDS)
            before = len(pauses_of(stack.process.pid, pauses))
            late = _under_load(stack, LOAD_SECONDS)
            return late, pauses_of(stack.process.pid, pauses)[before:]


def pauses_of(process: int, file: Path) -> list[float]:
    """Return the milliseconds of a process's collections, of a file of `gc_pauses`."""
    pairs = [line.split() for line in file.read_text().splitlines()]
    return [float(milliseconds) for pid, milliseconds in pairs if int(pid) == process]


def run() -> list[dict[str, Any]]:
    """Measure."""
    found = []
    with Stack() as stack:
        for kind in ("sync", "async"):
            cpu, switches, wal = _chains(stack, kind)
            name = f"of a hop, {kind}, all processes"
            found += [
                figure(f"CPU {name}", cpu, "ms", target=2),
                figure(f"voluntary context switches {name}", switches, "switches", target=20),
                figure(f"WAL {name}", wal, "kB", target=10),
            ]
        hops, bare = _single(stack)
    late, pauses = _loaded()
    text = f"{APART_SECONDS * 1000:g} ms apart"
    more = {"spread": hops, "floor": bare["p50"]}
    found.append(figure(f"hops {text}, p50, sync", hops["p50"], "ms", target=3, **more))
    for part, share, target in (("p50", 0.5, 4), ("p99", 0.99, 6), ("p99.9", 0.999, 25)):
        name = f"event → first line at {RATE} events a second, {part}"
        found.append(figure(name, round(quantile(late, share), 2), "ms", target=target))
    longest = round(max(pauses, default=0), 2)
    name = f"longest pause of the garbage collector at {RATE} events a second"
    found.append(figure(name, longest, "ms", target=10, collections=len(pauses)))
    return found
