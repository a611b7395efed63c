"""Progress of one node of a run: counts of its instances."""

from collections.abc import Sequence

from msgspec import Struct

from pubsubflow.model.runs.states import TaskState

UNDECIDED = -1

_BAD = (TaskState.FAILED, TaskState.CANCELLED)


# Not looked at by the garbage collector, nor is an empty tuple: 10,000 objects at once, as a large
# DAG has them, would have it run each time.
class NodeProgress(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """Counts of one node's instances.

    Attributes:
        total: Number of instances, or UNDECIDED until it is known whether the node runs.
        length: Number of elements of its result, when that is a list.
        left_out_by: The branches and short circuits that leave it out: it is skipped once all
            upstream is complete. Not earlier, or the order of ends would decide what follows.
        unmade: Number of instances that are not made yet: those with the highest map indexes.
        past_met: Whether the previous run is as the node needs it; see `runs.past`.
    """

    total: int = UNDECIDED
    success: int = 0
    failed: int = 0
    skipped: int = 0
    upstream_failed: int = 0
    length: int | None = None
    left_out_by: tuple[int, ...] = ()
    unmade: int = 0
    past_met: bool = False

    @property
    def ended(self) -> int:
        """How many instances have ended."""
        return self.success + self.failed + self.skipped + self.upstream_failed

    @property
    def complete(self) -> bool:
        """Whether every instance has ended."""
        return self.total == self.ended

    @property
    def state(self) -> TaskState:
        """Return the state of a complete node as those downstream see it."""
        if self.failed:
            return TaskState.FAILED
        if self.upstream_failed:
            return TaskState.UPSTREAM_FAILED
        return TaskState.SUCCESS if self.success else TaskState.SKIPPED

    def count(self, state: TaskState, instances: int = 1) -> None:
        """Add ended instances."""
        if state in _BAD:
            self.failed += instances
        elif state is TaskState.SUCCESS:
            self.success += instances
        elif state is TaskState.SKIPPED:
            self.skipped += instances
        else:
            self.upstream_failed += instances


def all_complete(upstream: Sequence[NodeProgress]) -> bool:
    """Return whether every instance of every node has ended."""
    return all(entry.total != UNDECIDED and entry.complete for entry in upstream)
