"""What can be set about the triggerer."""

import msgspec


class TriggererSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Say how many triggers a daemon runs, and how patient it is.

    Attributes:
        capacity: Triggers that this daemon runs at most; what is over the capacity of all waits.
        heartbeat_seconds: How often it says that it lives, and looks whether others do.
        silent_seconds: A triggerer that is silent for so long loses its triggers.
        sweep_seconds: How often it looks for triggers that nobody told it of.
        idle_seconds: The process for triggers ends when there was none for so long.
        block_seconds: A trigger that holds up the others for so long gets a thread of its own.
        stuck_seconds: One that holds them up for so long is stopped, with the process.
        threads: Threads at most for triggers that hold up others; further ones share these.
        acknowledge_seconds: How long a source may take to hear that an event is durable.
        cleanup_seconds: How long a trigger may take to close, or to clean up when a user cancelled.
        drain_seconds: How long events under way may take to become durable at the stop.
    """

    capacity: int = 20_000
    heartbeat_seconds: float = 1.0
    silent_seconds: float = 7.0
    sweep_seconds: float = 5.0
    idle_seconds: float = 60.0
    block_seconds: float = 0.25
    stuck_seconds: float = 5.0
    threads: int = 32
    acknowledge_seconds: float = 10.0
    cleanup_seconds: float = 10.0
    drain_seconds: float = 1.0
