"""A budget: the memory and the CPUs that a worker has for tasks that declare resources."""

import math
from collections.abc import Hashable

from msgspec import Struct

from pubsubflow.model.wire.task_resources import ResourcesSpec, WorkerResources

_CLAIM_AFTER_SECONDS = 30.0
AWAY_SECONDS = 15.0
"""A message without room comes again after that long at most."""
_CLAIM_SECONDS = AWAY_SECONDS + 5.0


class _Claim(Struct, frozen=True):
    resources: ResourcesSpec
    until: float


class Budget:
    """Adds up what running tasks have declared; pure.

    What is large must not wait for ever behind what is small: a task that has waited long claims
    its room, and others get only what is free beyond that.

    Args:
        worker: Name of the worker.
        memory: Bytes; None without a bound.
        cpu: CPUs; None without a bound.
    """

    def __init__(self, worker: str, memory: int | None, cpu: float | None) -> None:
        self._worker = worker
        self._memory = memory
        self._cpu = cpu
        self._held: dict[Hashable, ResourcesSpec] = {}
        self._claims: dict[Hashable, _Claim] = {}

    @property
    def room(self) -> WorkerResources:
        """What there is, and what of it is free."""
        memory, cpu = self._free()
        return WorkerResources(self._worker, self._memory, self._cpu, memory, cpu)

    def take(self, task: Hashable, wanted: ResourcesSpec) -> None:
        """Take the room for a task that `admits` has found."""
        self._claims.pop(task, None)
        self._held[task] = wanted

    def admits(self, task: Hashable, wanted: ResourcesSpec, *, age: float, now: float) -> bool:
        """Return whether there is room for a task; one that has waited long claims it.

        Args:
            task: Identifies it, also when it comes again.
            wanted: What it declares.
            age: For how long it has waited, seconds.
            now: The time, seconds.
        """
        claims = {key: each for key, each in self._claims.items() if each.until > now}
        self._claims = claims
        memory, cpu = self._free()
        if self.room.lacks(wanted):
            if age > _CLAIM_AFTER_SECONDS and self.could_ever(wanted):
                claims[task] = _Claim(wanted, now + _CLAIM_SECONDS)
            return False
        others = [claim.resources for key, claim in claims.items() if key != task]
        for claimed in others:
            memory = None if memory is None else memory - (claimed.memory or 0)
            cpu = None if cpu is None else cpu - (claimed.cpu or 0.0)
        left = WorkerResources(self._worker, free_memory=memory, free_cpu=cpu)
        return not (others and left.lacks(wanted))

    def could_ever(self, wanted: ResourcesSpec) -> bool:
        """Return whether a task has room when nothing else runs."""
        return not self.room.lacks(wanted, ever=True)

    def release(self, task: Hashable) -> None:
        """Give back the room of a task."""
        self._held.pop(task, None)

    def _free(self) -> tuple[int | None, float | None]:
        held = self._held.values()
        memory = self._memory
        if memory is not None:
            memory -= sum(each.memory or 0 for each in held)
        cpu = self._cpu
        if cpu is not None:
            cpu = round(cpu - math.fsum(each.cpu or 0.0 for each in held), 6)
        return memory, cpu
