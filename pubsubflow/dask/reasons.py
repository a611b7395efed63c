"""Reasons: why an attempt waits on a Dask cluster, as far as the scheduler's figures say."""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from pubsubflow.dask.options import Dask

LOST_WORKER = "the Dask worker that ran it is gone"
LOST = "its Dask scheduler was restarted, or its future was removed"

Workers = Mapping[str, Mapping[str, Any]]
"""Of each Dask worker its address, and its identity as the scheduler gives it."""


def why_waiting(options: Dask, workers: Workers, busy: Iterable[str]) -> str:
    """Return why no Dask worker has taken an attempt.

    Args:
        options: Of its task.
        workers: Those of the cluster.
        busy: Addresses of those that have something to do.
    """
    if not workers:
        return "the cluster has no workers"
    named = {key: each for key, each in workers.items() if _is_named(key, each, options.workers)}
    if not named:
        return f"none of its Dask workers is there: {', '.join(options.workers)}"
    for name, amount in options.resources.items():
        if not any(each.get("resources", {}).get(name, 0) >= amount for each in named.values()):
            count = f"{len(named)} worker{'s' if len(named) > 1 else ''}"
            return f"no Dask worker has the resource {name}={amount:g} (of {count})"
    threads = sum(each.get("nthreads", 0) for each in named.values())
    occupied = len(named.keys() & set(busy))
    return f"waits for a free slot: {threads} on {len(named)} workers, {occupied} of them busy"


def _is_named(address: str, worker: Mapping[str, Any], names: Iterable[str]) -> bool:
    names = list(names)
    known = {address, str(worker.get("name", "")), urlsplit(address).hostname or ""}
    return not names or not known.isdisjoint(names)
