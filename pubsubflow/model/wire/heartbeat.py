"""Heartbeats of workers, as they travel over the bus."""

import msgspec
from msgspec import Struct


class Heartbeat(Struct, frozen=True, array_like=True):
    """A worker is alive.

    Attributes:
        queues: Those that it serves.
        free_sync, free_async: Slots without a task.
        version: Of its pubsubflow.
        protocol: The newest protocol of messages that it understands.
        memory, cpu: Bytes and CPUs for tasks that declare resources; None without a bound.
        free_memory, free_cpu: Of that, what no running task has declared.
    """

    worker: str
    host: str
    pid: int
    slots: int
    busy: int
    queues: tuple[str, ...] = ()
    free_sync: int = 0
    free_async: int = 0
    version: str = ""
    protocol: int = 1
    memory: int | None = None
    cpu: float | None = None
    free_memory: int | None = None
    free_cpu: float | None = None


decode_heartbeat = msgspec.msgpack.Decoder(Heartbeat).decode
