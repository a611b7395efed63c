"""Lengths of what tasks and groups are mapped over."""

from collections.abc import Callable, Iterable, Sequence

from pubsubflow.model.runs.node_progress import NodeProgress
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.spec import MappedArgument, TaskSpec

_JOINED: dict[str, Callable[[Iterable[int]], int]] = {"zip": min, "longest": max, "concat": sum}


def length_of(plan: Plan, argument: MappedArgument, nodes: Sequence[NodeProgress]) -> int | None:
    """Return the length of a mapped argument; None if a result has none.

    A task that did not succeed has no elements.

    Args:
        plan: The DAG's version that the run has.
        argument: The argument.
        nodes: The progress of the nodes.
    """
    if argument.joined:
        lengths = [length_of(plan, part, nodes) for part in argument.parts]
        known = [each for each in lengths if each is not None]
        return _JOINED[argument.joined](known) if len(known) == len(lengths) else None
    if argument.node is None:
        return argument.length or 0
    entry = nodes[argument.node]
    length = entry.success if plan.spec.tasks[argument.node].mapped else entry.length
    return length if length is not None or entry.success else 0


def after_sources(
    plan: Plan, task: TaskSpec, nodes: Sequence[NodeProgress], decided: TaskState | None
) -> TaskState | None:
    """Return the state of a mapped task of a DAG that counts instances.

    It cannot start, whatever its rule says, if what it is mapped over has not succeeded.

    Args:
        plan: The DAG's version that the run has.
        task: The task.
        nodes: The progress of the nodes.
        decided: What its rule says.
    """
    sources = (node for each in task.mapped_arguments for node in each.sources())
    ends = {_end_of(plan.spec.tasks[node], nodes[node]) for node in sources}
    if TaskState.UPSTREAM_FAILED in ends:
        return TaskState.UPSTREAM_FAILED
    if TaskState.SKIPPED in ends and decided is not TaskState.UPSTREAM_FAILED:
        return TaskState.SKIPPED
    return decided


def _end_of(task: TaskSpec, entry: NodeProgress) -> TaskState | None:
    """Return how a node has ended as a whole; None if it has elements, or may have."""
    if not entry.complete or entry.success:
        return None
    if task.mapped and (entry.total > 1 or entry.failed or not _over_results(task)):
        return None
    return TaskState.SKIPPED if entry.skipped else TaskState.UPSTREAM_FAILED


def _over_results(task: TaskSpec) -> bool:
    return any(each.sources() for each in task.mapped_arguments)
