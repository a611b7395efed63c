"""Worker settings: queues, slots, timeouts and limits of its processes."""

import os
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from pubsubflow.model.ranges import (
    Bytes,
    Count,
    CountOrNone,
    Cpus,
    MemorySize,
    Processes,
    QueueName,
    Seconds,
    SecondsOrNone,
)


class ResultStoreSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where large results of tasks are kept.

    Attributes:
        store: URL of a folder (any of fsspec's); empty for none.
        inline_bytes: A larger encoded result goes to the store.
        max_bytes: A larger one fails its task.
        wait_seconds: How long a worker tries while the store is away; then the attempt fails.
    """

    store: str = ""
    inline_bytes: Annotated[int, Meta(ge=0, le=900_000)] = 256 << 10
    max_bytes: Annotated[int, Meta(ge=1, le=512 << 20)] = 64 << 20
    wait_seconds: SecondsOrNone = 60.0


def _default_processes() -> int:
    return max(4, os.cpu_count() or 1)


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a worker and its runner processes.

    Args:
        queues: The queues it serves.
        processes: How many sync tasks run at once, each in a process.
        async_slots: How many async tasks run at once, on one event loop.
        prefetch: How many more sync tasks it takes, so that no process waits for the next. While
            they take less than 10 ms, four more for each process, unless it is 0.
        max_wait_seconds: A task that has waited here that long is returned to the queue, for
            workers with free processes.
        ack_wait_seconds: After that long without a heartbeat a worker's tasks are redelivered.
        heartbeat_seconds: Interval of heartbeats, which also keep the tasks' messages in progress.
        started_seconds: Tasks that last longer are published as started.
        grace_seconds: How long a task may take to end when it is cancelled or timed out.
        drain_seconds: How long running tasks may take to end when the worker stops.
        warm_processes: How many idle processes for sync tasks are kept.
        idle_seconds: Further idle processes are retired after that long.
        recycle_tasks: A process for sync tasks is replaced after so many tasks, one for async
            tasks after ten times as many.
        max_idle_bytes: An idle process that holds more memory is replaced.
        max_log_bytes: Output of one attempt beyond that is dropped.
        ask_seconds: How long the manager may take to reply to a task's request.
        cache_dir: Where the files of bundles are kept; `bundles` in the home when None.
        memory: What tasks that declare resources may use together, such as `16GiB`: more of them
            wait. Without it they do not. Likewise `cpu`.
        cgroup: Below which control group (v2) these tasks get theirs: `auto` for what systemd has
            delegated, `off`, or its folder.
        max_cache_bytes: Beyond it, bundles that are in no use are removed from there.
        run_as: The account of all user code of the daemon, where that is root: `auto` for one of
            its own, the name of an account, or nothing for root.
        executor: Where tasks run that name no executor: `local`, or one that has a section
            `[executors.NAME]`.
        only_executors: Whether it takes no task for processes of its own: then no user code runs
            beside it, and none gets its rights on a cluster.
    """

    queues: Annotated[tuple[QueueName, ...], Meta(min_length=1)] = ("default",)
    processes: Processes = msgspec.field(default_factory=_default_processes)
    async_slots: Count = 200
    prefetch: CountOrNone = 2
    max_wait_seconds: Seconds = 1.0
    ack_wait_seconds: Seconds = 8.0
    heartbeat_seconds: Seconds = 2.0
    started_seconds: SecondsOrNone = 0.1
    grace_seconds: Seconds = 2.0
    drain_seconds: SecondsOrNone = 30.0
    warm_processes: CountOrNone = 2
    idle_seconds: Seconds = 60.0
    recycle_tasks: Count = 10_000
    max_idle_bytes: Bytes = 1 << 30
    max_log_bytes: Bytes = 10 << 20
    ask_seconds: Seconds = 60.0
    cache_dir: Path | None = None
    max_cache_bytes: Bytes = 2 << 30
    run_as: str = "auto"
    memory: MemorySize | None = None
    cpu: Cpus | None = None
    cgroup: Annotated[str, Meta(pattern=r"^(auto|off|/.+)$")] = "auto"
    executor: str = "local"
    only_executors: bool = False
