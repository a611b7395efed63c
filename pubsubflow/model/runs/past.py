"""The past: what a task with `depends_on_past` waits for in the previous run of its DAG.

The previous run is the one with the greatest logical time below the run's own; among runs without
a logical time, as events start them, the one that was made before it. Runs that were requested are
waited for by none. Each partition has a past of its own.
"""

from collections.abc import Iterable

from msgspec import Struct

from pubsubflow.model.runs.node_progress import UNDECIDED, NodeProgress
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.spec import DagSpec, TaskSpec


class PastRun(Struct, frozen=True):
    """The previous run.

    Attributes:
        spec: The version of its DAG that it has.
        nodes: How far its nodes are.
    """

    spec: DagSpec
    nodes: list[NodeProgress]


def unmet_task(task: TaskSpec, past: PastRun | None) -> str | None:
    """Return the id of the task of the previous run that a task waits for; None for none.

    Args:
        task: A task with `depends_on_past`.
        past: The previous run; None if it is absent. So is a task that its version does not have.
    """
    if past is None:
        return None
    own = next((each for each in past.spec.tasks if each.task_id == task.task_id), None)
    if own is None:
        return None
    needed = [own]
    if task.wait_for_downstream:
        needed += [each for each in past.spec.tasks if own.node in each.upstream]
    return next((each.task_id for each in needed if not _is_met(past.nodes[each.node])), None)


def _is_met(entry: NodeProgress) -> bool:
    done = entry.total != UNDECIDED and entry.complete
    return done and not (entry.failed or entry.upstream_failed)


def ended_nodes(spec: DagSpec, ended: Iterable[tuple[int, TaskState]]) -> list[NodeProgress]:
    """Return the nodes of a run that has ended, from the final states of its instances."""
    nodes = [NodeProgress() for _ in spec.tasks]
    for node, state in ended:
        nodes[node].total = max(nodes[node].total, 0) + 1
        nodes[node].count(state)
    return nodes
