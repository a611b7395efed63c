"""Airflow's tasks: what an attempt costs, how late one begins after an event, what waits cost."""

import asyncio
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.figures import figure, spread
from benchmarks.stack import Stack
from pubsubflow.airflow.outside.client import HostUnreachable, attempt_client
from pubsubflow.airflow.outside.place import host_address
from pubsubflow.airflow.outside.settings import AirflowBundleSettings
from pubsubflow.airflow.outside.standalone import running_bundles
from pubsubflow.airflow.protocol import AirflowOrder, AttemptReport, ClientRequest, encode
from tools import airflow_env

TIMES = int(os.environ.get("BENCH_TIMES", "60"))
WAITS = int(os.environ.get("BENCH_WAITS", "10000"))
_WARM_UP = 5
_START_TRIES = 5
# Long enough that the process that is forked ahead is there, as between tasks of most files.
_REST_SECONDS = 0.05
_IDLE_SECONDS = float(os.environ.get("BENCH_IDLE_SECONDS", "60"))
# A busy machine takes some ten minutes to begin ten thousand tasks.
_DEFERRED_SECONDS = 3600.0
_LATE_MS = 25
_MIB = 1 << 20
_DAGS = Path(__file__).parent / "airflow_dags"
# How a bundle runs its attempts → its settings, and the most milliseconds that one may take.
_KINDS: dict[str, tuple[dict[str, Any], float]] = {
    "forked": ({"ahead": 0}, 25),
    "ahead": ({"ahead": 1}, 15),
    "reuse": ({"isolation": "reuse"}, 3),
}


def _python() -> Path:
    given = os.environ.get("AIRFLOW_PYTHON")
    found = Path(given) if given else airflow_env.python_of(airflow_env.releases()[-1])
    if found is None:
        raise RuntimeError("no Airflow here: name an interpreter that has it by AIRFLOW_PYTHON")
    return found


def run() -> list[dict[str, Any]]:
    """Measure."""
    python = _python()
    return [*asyncio.run(_attempts(python)), *_daemon(python)]


async def _attempts(python: Path) -> list[dict[str, Any]]:
    """Measure attempts of an empty task, of each kind in turn."""
    bundles = {
        kind: AirflowBundleSettings(kind="airflow", path=str(_DAGS), python=python, **settings)
        for kind, (settings, _) in _KINDS.items()
    }
    taken: dict[str, list[float]] = {kind: [] for kind in bundles}
    with tempfile.TemporaryDirectory() as home, running_bundles(bundles, Path(home)):
        hosts = dict(zip(bundles, psutil.Process().children(), strict=True))
        for kind in bundles:
            await _started(kind)
        cpu = {kind: _cpu(host) for kind, host in hosts.items()}
        for _ in range(TIMES):
            for kind in bundles:
                await asyncio.sleep(_REST_SECONDS)
                taken[kind].append(await _attempt(kind))
        await asyncio.sleep(1)  # the last ones end
        found = [
            figure(
                f"an attempt of Airflow's, {kind}",
                round(statistics.median(taken[kind]), 2),
                "ms",
                target=_KINDS[kind][1],
                cpu=round((_cpu(host) - cpu[kind]) / TIMES * 1000, 2),
                **spread(taken[kind]),
            )
            for kind, host in hosts.items()
        ]
        memory = [child.memory_full_info().uss for child in hosts["forked"].children()]
    return [*found, figure("a file process", round(memory[0] / _MIB, 1), "MiB", target=20)]


async def _started(kind: str) -> None:
    """Wait for a host, which has Airflow to import, and warm its file's process up."""
    for number in range(_START_TRIES):
        try:
            await _attempt(kind)
            break
        except HostUnreachable:
            if number + 1 == _START_TRIES:
                raise
    for _ in range(_WARM_UP):
        await _attempt(kind)


async def _attempt(kind: str) -> float:
    """Run an attempt in a bundle of a kind; return the milliseconds from the order to the end."""
    now = datetime.now(UTC)
    order = AirflowOrder(
        f"{kind}_attempts", "nothing", "bench", "manual", now, now, 1, 0, str(uuid.uuid4())
    )
    folder = str(_DAGS)
    request = ClientRequest("attempt", folder, folder, "tasks.py", payload=encode(order))
    began = time.perf_counter()
    async with attempt_client(host_address(kind), request, _drop) as client:
        report = await client.exchange(_no_answer)
    assert isinstance(report, AttemptReport), report
    assert report.state == "success", report
    return (time.perf_counter() - began) * 1000


def _drop(_: str) -> None:
    """Drop a line of output."""


async def _no_answer(_: object) -> None:
    """Answer a question: there is nothing."""


def _cpu(host: psutil.Process) -> float:
    """Return the seconds that a host has computed, with all that it has forked."""
    found = 0.0
    for process in (host, *host.children(recursive=True)):
        times = process.cpu_times()
        found += times.user + times.system + times.children_user + times.children_system
    return found


def _daemon(python: Path) -> list[dict[str, Any]]:
    """Measure a daemon with two bundles of the same files, which fork ahead or reuse."""
    with _bundles(python) as stack:
        return [*(_first_lines(stack, kind) for kind in ("fork", "reuse")), _clocks(stack)]


@contextmanager
def _bundles(python: Path) -> Iterator[Stack]:
    with tempfile.TemporaryDirectory() as native:
        stack = Stack(Path(native))
        for name in ("fork", "reuse"):
            bundle = f"PUBSUBFLOW__BUNDLES__{name.upper()}__"
            stack.configure(f"{bundle}KIND", "airflow")
            stack.configure(f"{bundle}PATH", str(_DAGS))
            stack.configure(f"{bundle}PYTHON", str(python))
            stack.configure(f"{bundle}ISOLATION", name)
        stack.configure("BENCH_WAITS", str(WAITS))
        # Two hundred attempts at once have a busy machine answer none of them in time.
        stack.configure("PUBSUBFLOW__WORKER__ASYNC_SLOTS", "20")
        with stack:
            deadline = time.monotonic() + 120
            while len(stack.get("/dags")["items"]) < 6:
                if time.monotonic() > deadline:
                    raise TimeoutError(stack.get("/dags"))
                time.sleep(0.2)
            yield stack


def _first_lines(stack: Stack, kind: str) -> dict[str, Any]:
    taken = []
    for number in range(_WARM_UP + TIMES):
        if number == _WARM_UP:
            cpu = stack.cpu_seconds()
        stack.moments.clear()
        time.sleep(_REST_SECONDS)
        began = time.time()
        stack.emit(f"bench://{kind}_orders")
        ((moment, _, _),) = stack.moments.wait(1)
        taken.append((moment - began) * 1000)
    taken = taken[_WARM_UP:]
    cpu = round((stack.cpu_seconds() - cpu) / TIMES * 1000, 1)
    value = round(statistics.median(taken), 2)
    name = f"asset event → first line of an Airflow task, {kind}"
    return figure(name, value, "ms", target=_LATE_MS, cpu=cpu, **spread(taken))


def _clocks(stack: Stack) -> dict[str, Any]:
    """Measure what waits for time cost while nothing happens."""
    before = _idle(stack)
    run = stack.trigger("reuse_clocks")
    deadline = time.monotonic() + _DEFERRED_SECONDS
    while _deferred(stack, run) < WAITS:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{_deferred(stack, run)} of {WAITS} tasks are deferred")
        time.sleep(1)
    waiting = _idle(stack)
    stack.post(f"/runs/{run}/cancel", {})
    more = round(max(waiting - before, 0.0), 2)
    name = f"{WAITS} DateTimeTriggers"
    return figure(name, more, "% of a core", target=1, before=round(before, 2))


def _idle(stack: Stack) -> float:
    """Return how much of a core all processes use while nothing happens, in percent."""
    time.sleep(2)
    began = stack.cpu_seconds()
    time.sleep(_IDLE_SECONDS)
    return (stack.cpu_seconds() - began) / _IDLE_SECONDS * 100


def _deferred(stack: Stack, run: str) -> int:
    return stack.get(f"/runs/{run}")["tasks"].get("deferred", 0)
