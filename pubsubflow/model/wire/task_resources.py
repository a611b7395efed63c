"""Resources that tasks declare: memory and CPU, how they are written, and whether a worker fits."""

import re
from collections.abc import Iterable

from msgspec import Struct

_UNITS: dict[str, int] = {
    unit: base**power
    for base, names in ((1024, "KiB MiB GiB TiB"), (1000, "KB MB GB TB"))
    for power, unit in enumerate(names.split(), start=1)
}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+)")
_LEAST_BYTES = 1_000_000
_MOST_BYTES = 1 << 50
_MOST_CPU = 10_000
_TENTH = 10
_LONG = 10_000


class ResourcesSpec(Struct, frozen=True, omit_defaults=True):
    """What a task may use while it runs.

    Attributes:
        memory: Bytes of its process and of those that it starts, together; None without a bound.
        cpu: Number of CPUs, also parts of one; None without a bound.
    """

    memory: int | None = None
    cpu: float | None = None


def parse_memory(value: object) -> int:
    """Return a size of memory in bytes.

    Args:
        value: A number of bytes, or a text such as `2GiB` (1024) or `512MB` (1000).

    Raises:
        TypeError: It is neither.
        ValueError: Its unit is unknown, or it is not from 1 MiB to 1 PiB.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError('must be a text such as "2GiB" or "512MB", or a number of bytes')
    size = _read_size(value) if isinstance(value, str) else value
    if not _LEAST_BYTES <= size <= _MOST_BYTES:
        raise ValueError("must be from 1MB to 1024TiB")
    return size


def _read_size(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    factor = _UNITS.get(match[2]) if match is not None else None
    if match is None or factor is None:
        units = ", ".join(_UNITS)
        raise ValueError(f'must be like "2GiB" or "512MB": a number and one of {units}')
    return round(float(match[1]) * factor)


def parse_cpu(value: object) -> float:
    """Return a number of CPUs.

    Raises:
        TypeError: It is not a number.
        ValueError: It is not above 0, or above 10,000.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("must be a number of CPUs, such as 1.5")
    if not 0 < value <= _MOST_CPU:
        raise ValueError(f"must be above 0, and at most {_MOST_CPU:,}")
    return float(value)


def format_memory(count: int) -> str:
    """Return a size of memory for people: `2 GiB`, `512 MB`, `1.4 GiB`."""
    for unit, factor in reversed(_UNITS.items()):
        if count >= factor and count % factor == 0 and count // factor < _LONG:
            return f"{count // factor} {unit}"
    unit, factor = "KiB", 1024
    for larger in ("MiB", "GiB", "TiB"):
        if count >= _UNITS[larger]:
            unit, factor = larger, _UNITS[larger]
    tenths = round(count * _TENTH / factor)
    return f"{tenths / _TENTH:g} {unit}"


def describe_resources(memory: int | None, cpu: float | None) -> str:
    """Return what a task declares, for people: `2 GiB, 1.5 cpu`."""
    parts = [] if memory is None else [format_memory(memory)]
    parts += [] if cpu is None else [f"{cpu:g} cpu"]
    return ", ".join(parts)


def memory_exceeded(limit: int) -> str:
    """Return why a task failed that used more memory than it declares."""
    return f"used more than {format_memory(limit)} (resources.memory)"


class WorkerResources(Struct, frozen=True):
    """The memory and CPU of a worker for tasks that declare resources.

    Attributes:
        worker: Its name.
        memory: Bytes; None without a bound. Likewise `cpu`.
        free_memory: Bytes that no running task has declared. Likewise `free_cpu`.
    """

    worker: str
    memory: int | None = None
    cpu: float | None = None
    free_memory: int | None = None
    free_cpu: float | None = None

    def lacks(self, wanted: ResourcesSpec, *, ever: bool = False) -> list[str]:
        """Return what a task waits for at this worker, such as `1.5 cpu; 0.5 free`.

        Args:
            wanted: What the task declares.
            ever: Whether to compare with all that the worker has, rather than with what is free.
        """
        memory, cpu = (self.memory, self.cpu) if ever else (self.free_memory, self.free_cpu)
        word = "in all" if ever else "free"
        lacking = []
        if wanted.memory is not None and memory is not None and wanted.memory > memory:
            free = format_memory(memory) if memory > 0 else "0"
            lacking.append(f"{format_memory(wanted.memory)}; {free} {word}")
        if wanted.cpu is not None and cpu is not None and wanted.cpu > cpu + _ROUNDING:
            lacking.append(f"{wanted.cpu:g} cpu; {cpu:g} {word}")
        return lacking


_ROUNDING = 1e-6
"""Sums of fractions such as 0.1 are not exact."""


def lacking_room(wanted: ResourcesSpec, rooms: Iterable[WorkerResources]) -> str | None:
    """Return which resources a task waits for, over all workers of its queue; None if one has room.

    The worker that is named is the first, in the given order, that could ever run it.
    """
    found = [(room, room.lacks(wanted)) for room in rooms]
    if not found or any(not lacking for _, lacking in found):
        return None
    for room, lacking in found:
        if not room.lacks(wanted, ever=True):
            return f"{' and '.join(lacking)} on worker {room.worker}"
    room, _ = found[0]
    lacking = room.lacks(wanted, ever=True)
    return (
        f"a worker that has room for it: {' and '.join(lacking)} on worker {room.worker}; raise "
        "memory or cpu of its [worker], or lower the task's resources"
    )
