"""Triggerer settings: capacity, intervals and limits."""

import msgspec

from pubsubflow.model.ranges import Count, Processes, Seconds


class TriggererSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a triggerer and its host process.

    Attributes:
        capacity: Triggers that this daemon runs at most; what exceeds the capacity of all waits.
        heartbeat_seconds: Interval of heartbeats, which renew the leases.
        silent_seconds: A triggerer without a heartbeat for so long loses its triggers.
        sweep_seconds: Interval at which it looks for triggers of which no message came.
        idle_seconds: The host process ends when it had no triggers for so long.
        block_seconds: A trigger that blocks the event loop for so long gets a thread of its own.
        stuck_seconds: One that blocks it for so long is stopped, with the process.
        threads: Threads at most for triggers that block; further ones share these.
        acknowledge_seconds: How long a trigger's `acknowledge` may take.
        cleanup_seconds: How long a trigger may take to close, or to clean up when a user cancelled.
        drain_seconds: How long pending events may take to be committed at the stop.
    """

    capacity: Count = 20_000
    heartbeat_seconds: Seconds = 1.0
    silent_seconds: Seconds = 7.0
    sweep_seconds: Seconds = 5.0
    idle_seconds: Seconds = 60.0
    block_seconds: Seconds = 0.25
    stuck_seconds: Seconds = 5.0
    threads: Processes = 32
    acknowledge_seconds: Seconds = 10.0
    cleanup_seconds: Seconds = 10.0
    drain_seconds: Seconds = 1.0
