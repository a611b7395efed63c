"""Tasks on Dask: what one costs over a future of `distributed` alone, on the same cluster."""

import os
import statistics
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster, wait

from benchmarks.figures import figure, spread
from benchmarks.stack import Stack

TIMES = 150
MANY = 200
_WARM_UP = 20
_THREADS = 4
_TARGET_MS = 5
_DAGS = Path(__file__).parent / "dask_dags"


@contextmanager
def _cluster(log: Path):
    """A scheduler and one worker in processes of their own, as in production."""
    os.environ["BENCH_LOG"] = str(log)
    with LocalCluster(n_workers=1, threads_per_worker=_THREADS, dashboard_address=None) as cluster:
        yield cluster


def _alone(client: Client) -> list[float]:
    """Return the milliseconds from the submission of a future to its function's first line."""
    found = []
    for _ in range(TIMES):
        began = time.time()
        future = client.submit(time.time, pure=False)
        found.append((future.result() - began) * 1000)
    return found[_WARM_UP:]


def _many_alone(client: Client) -> float:
    began = time.perf_counter()
    wait(client.map(abs, range(MANY), pure=False))
    return (time.perf_counter() - began) * 1000 / MANY


def _first_lines(stack: Stack, dag_id: str) -> list[float]:
    """Return the milliseconds from the order of a run to the first line of its task."""
    found = []
    for _ in range(TIMES):
        stack.moments.clear()
        began = time.time()
        run = stack.trigger(dag_id)
        ((moment, _, _),) = stack.moments.wait(1)
        found.append((moment - began) * 1000)
        assert stack.wait_run(run)["state"] == "success"
    return found[_WARM_UP:]


def _many(stack: Stack, place: str) -> float:
    """Return the milliseconds a task of a run with many of them; the better of two."""
    found = []
    for _ in range(3):
        began = time.perf_counter()
        assert stack.wait_run(stack.trigger(f"{place}_many"))["state"] == "success"
        found.append((time.perf_counter() - began) * 1000 / MANY)
    return min(found[1:])


def run() -> list[dict[str, Any]]:
    """Measure."""
    stack = Stack(_DAGS)
    with _cluster(stack.folder / "moments") as cluster, Client(cluster) as client:
        stack.configure("PUBSUBFLOW__EXECUTORS__DASK__ADDRESS", cluster.scheduler_address)
        with stack:
            return _figures(stack, client)


def _figures(stack: Stack, client: Client) -> list[dict[str, Any]]:
    alone, found = _alone(client), []
    for kind in ("async", "sync"):
        there, here = (_first_lines(stack, f"{place}_{kind}") for place in ("dask", "local"))
        over = statistics.median(there) - statistics.median(here) - statistics.median(alone)
        name = f"a task on Dask over a future alone, {kind}"
        facts = {"dask": spread(there), "local": spread(here), "alone": spread(alone)}
        found.append(figure(name, round(over, 2), "ms", target=_TARGET_MS, **facts))
    there, here, future = _many(stack, "dask"), _many(stack, "local"), _many_alone(client)
    facts = {"dask": round(there, 2), "local": round(here, 2), "alone": round(future, 2)}
    name = f"{MANY} mapped tasks on Dask over futures alone and over tasks here, a task"
    over = there - here - future
    return [*found, figure(name, round(over, 2), "ms", target=_TARGET_MS, **facts)]
