"""Worker settings: queues, slots, timeouts and limits of its processes."""

import os

import msgspec


def _default_processes() -> int:
    return max(4, os.cpu_count() or 1)


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a worker and its runner processes.

    Args:
        queues: The queues it serves.
        processes: How many sync tasks run at once, each in a process.
        async_slots: How many async tasks run at once, on one event loop.
        prefetch: How many more sync tasks it takes, so that no process waits for the next.
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
    """

    queues: tuple[str, ...] = ("default",)
    processes: int = msgspec.field(default_factory=_default_processes)
    async_slots: int = 200
    prefetch: int = 2
    max_wait_seconds: float = 1.0
    ack_wait_seconds: float = 10.0
    heartbeat_seconds: float = 3.0
    started_seconds: float = 0.1
    grace_seconds: float = 2.0
    drain_seconds: float = 30.0
    warm_processes: int = 2
    idle_seconds: float = 60.0
    recycle_tasks: int = 10_000
    max_idle_bytes: int = 1 << 30
    max_log_bytes: int = 10 << 20
    ask_seconds: float = 60.0
