"""Confinement: the limits of the process of one task that declares resources, and their watch."""

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable

import anyio
import anyio.to_thread

from pubsubflow.model.wire.messages import Outcome, TaskError
from pubsubflow.model.wire.task_resources import (
    ResourcesSpec,
    WorkerResources,
    memory_exceeded,
    parse_memory,
)
from pubsubflow.runner.limits import ProcessLimits
from pubsubflow.worker.assignment import Assignment, AttemptOutcome
from pubsubflow.worker.resources.budget import Budget
from pubsubflow.worker.resources.cgroups import ControlGroup, ControlGroups
from pubsubflow.worker.resources.memory import held_bytes, share_bytes
from pubsubflow.worker.settings import WorkerSettings

_WATCH_SECONDS = 0.1
_ERROR = "MemoryError"


class Confinement:
    """The limits of one process.

    Args:
        resources: What its task declares.
        cpus: The CPUs that it gets without a control group.
        group: Its control group, if it has one.
        on_close: Called once, when the process is gone.

    Attributes:
        limits: What the process sets before it runs the task.
        peak_bytes: The most memory that was seen.
    """

    def __init__(
        self,
        resources: ResourcesSpec,
        cpus: tuple[int, ...],
        group: ControlGroup | None,
        on_close: Callable[["Confinement"], None],
    ) -> None:
        self.resources = resources
        self.cpus = cpus
        self.group = group
        self._on_close = on_close
        self.limits = ProcessLimits(resources.memory or 0, () if group is not None else cpus)
        self.peak_bytes = 0
        self._exceeded = False
        self._entered = True

    def enter(self, pid: int) -> None:
        """Put a process into its control group, if it has one, before it gets its task."""
        # By the daemon: the process may run under an account that cannot.
        if self.group is not None and not self.group.enter(pid):
            self._entered = False

    async def watch(self, pid: int, on_exceeded: Callable[[], None]) -> None:
        """Watch the memory of a process with all that it started, unless the kernel does.

        Args:
            pid: The process.
            on_exceeded: Called once, when it holds more than the limit.
        """
        limit = self.resources.memory
        if limit is None or (self.group is not None and self._entered):
            return
        while True:
            await anyio.sleep(_WATCH_SECONDS)
            held = held_bytes(pid)
            # Pages that are shared with the zygote count in full in what is read quickly.
            if held > limit:
                held = await anyio.to_thread.run_sync(share_bytes, pid)
            self.peak_bytes = max(self.peak_bytes, held)
            if held > limit:
                self._exceeded = True
                on_exceeded()
                return

    def verdict(self) -> AttemptOutcome | None:
        """Return how the attempt ends if its memory was the reason; None otherwise."""
        if self.group is not None:
            self.peak_bytes = max(self.peak_bytes, self.group.peak_bytes)
            self._exceeded = self._exceeded or self.group.ran_out
        if not self._exceeded or self.resources.memory is None:
            return None
        error = TaskError(_ERROR, memory_exceeded(self.resources.memory))
        return AttemptOutcome(Outcome.FAILED, error)

    def close(self) -> None:
        """Give all back, once the process is gone."""
        self._on_close(self)


class Confinements:
    """What a worker has for tasks that declare resources.

    Args:
        settings: The worker's.
        worker: Its name.

    Attributes:
        on_freed: Called whenever a task has given its room back.
    """

    def __init__(self, settings: WorkerSettings, worker: str) -> None:
        memory = None if settings.memory is None else parse_memory(settings.memory)
        self._budget = Budget(worker, memory, settings.cpu)
        self._setting = settings.cgroup
        self._worker = worker
        self._cpus: Counter[int] = Counter(dict.fromkeys(_own_cpus(), 0))
        self._groups: ControlGroups | None = None
        self._looked = False
        self.on_freed: list[Callable[[], None]] = []

    @property
    def room(self) -> WorkerResources:
        """What there is, and what of it is free."""
        return self._budget.room

    def could_ever(self, wanted: ResourcesSpec) -> bool:
        """Return whether a task has room when nothing else runs."""
        return self._budget.could_ever(wanted)

    def has_room(self, assignment: Assignment, wanted: ResourcesSpec) -> bool:
        """Return whether there is room for an assignment that declares resources."""
        delivery = assignment.delivery
        waited = time.time() - delivery.timestamp.timestamp()
        return self._budget.admits(delivery.subject, wanted, age=waited, now=time.monotonic())

    def take(self, assignment: Assignment, wanted: ResourcesSpec) -> Confinement:
        """Take the room for an assignment, and return the limits of its process."""
        task = assignment.delivery.subject
        self._budget.take(task, wanted)
        if not self._looked:  # at the first task that needs one
            self._looked = True
            self._groups = ControlGroups.find(self._setting, self._worker)
        group = None if self._groups is None else self._groups.open(wanted)
        cpus = self._choose_cpus(wanted.cpu)
        self._cpus.update(cpus)

        def give_back(confinement: Confinement) -> None:
            self._cpus.subtract(confinement.cpus)
            if confinement.group is not None and self._groups is not None:
                self._groups.close(confinement.group)
            self._budget.release(task)
            for freed in self.on_freed:
                freed()

        return Confinement(wanted, cpus, group, give_back)

    def _choose_cpus(self, wanted: float | None) -> tuple[int, ...]:
        """Return the CPUs that the fewest such tasks use; empty for all."""
        if wanted is None or math.ceil(wanted) >= len(self._cpus):
            return ()
        return tuple(sorted(sorted(self._cpus, key=self._load)[: math.ceil(wanted)]))

    def _load(self, cpu: int) -> tuple[int, int]:
        return self._cpus[cpu], cpu


def _own_cpus() -> Iterable[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return ()
