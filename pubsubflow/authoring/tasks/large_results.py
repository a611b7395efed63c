"""Large results: which results go to the result store, or stay with the executor of their task."""

from collections.abc import Sequence
from typing import Protocol

from pubsubflow.errors import DefinitionError
from pubsubflow.model.spec import TaskSpec
from pubsubflow.model.wire.executor_spec import ExecutorSpec
from pubsubflow.model.wire.stored_results import StoredResult


class ResultLimits(Protocol):
    """Which results are large, and where these may be; see `RunnerSettings`."""

    @property
    def inline_bytes(self) -> int:
        """A larger one does not go with its message."""

    @property
    def max_stored_bytes(self) -> int:
        """A larger one does not go to the result store; 0 without one."""

    @property
    def keeper(self) -> str:
        """The name of what keeps them; empty for nothing."""

    @property
    def max_kept_bytes(self) -> int:
        """A larger one is not kept there."""


def is_kept(limits: ResultLimits, executor: ExecutorSpec | None) -> bool:
    """Return whether large results of a task stay with its executor."""
    return executor is not None and bool(limits.keeper) and executor.keeps_results


def most_bytes(limits: ResultLimits, executor: ExecutorSpec | None, usual: int) -> int:
    """Return how many bytes the encoded result of a task may have.

    Args:
        limits: Those of its runner.
        executor: That of the task.
        usual: How many go with a message.
    """
    stored = limits.max_stored_bytes or usual
    return max(stored, limits.max_kept_bytes) if is_kept(limits, executor) else stored


def large_result(
    limits: ResultLimits,
    tasks: Sequence[TaskSpec],
    fence: tuple[int, int, int, int, int],
    size: int,
) -> StoredResult | None:
    """Return the reference to a result that is large; None for one that goes with its message.

    Args:
        limits: Those of the runner.
        tasks: Those of the DAG, by number.
        fence: Run, node, map index, attempt and delivery of the task.
        size: Bytes of the encoded result.

    Raises:
        DefinitionError: It can only stay with its executor, and a task takes it elsewhere.
    """
    node = fence[1]
    executor = tasks[node].executor
    kept = is_kept(limits, executor) and size <= limits.max_kept_bytes
    if size <= limits.inline_bytes or not (limits.max_stored_bytes or kept):
        return None
    if not kept or executor is None:
        return StoredResult(*fence, size)
    copied = size <= limits.max_stored_bytes
    elsewhere = [
        task.task_id
        for task in tasks
        if not executor.shares_results(task.executor)
        and (node in task.inputs or any(node == each.node for each in task.mapped_arguments))
    ]
    if elsewhere and not copied:
        raise DefinitionError(
            f"the result has {size:,} bytes and stays in {executor.name}: "
            f"give task {elsewhere[0]!r} the same executor with result={executor.name!r}, or "
            "set [results] store and max_bytes"
        )
    return StoredResult(*fence, size, limits.keeper, copied)
