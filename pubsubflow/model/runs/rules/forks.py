"""Branches and short circuits: which nodes they leave out."""

from collections.abc import Iterable, Sequence

from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.spec import TaskSpec, TriggerRule

LEAVES_OUT = "!"
"""Before a task id in what a branch follows: it leaves that out, and nothing else. No id has it."""


def not_followed(plan: Plan, task: TaskSpec, follow: Sequence[str]) -> list[int]:
    """Return the nodes that a branch or a short circuit leaves out, in order.

    A task with the rule `always` and a teardown are not left out, nor are tasks that follow from
    them alone.

    Args:
        plan: The DAG's version that the run has.
        task: The branch or the short circuit.
        follow: Tasks, or groups, whose first tasks are meant; or what is left out, anywhere, each
            with `LEAVES_OUT` before its id.
    """
    if follow and follow[0].startswith(LEAVES_OUT):
        named = {each.removeprefix(LEAVES_OUT) for each in follow}
        tasks = plan.spec.tasks
        return [each.node for each in tasks if each.task_id in named and not _runs_anyway(each)]
    downstream = [
        [node for node in nodes if not _runs_anyway(plan.spec.tasks[node])]
        for nodes in plan.downstream
    ]
    if task.role == "short_circuit":
        return sorted(_reachable(downstream, downstream[task.node]))
    chosen = [
        node
        for node in downstream[task.node]
        if plan.spec.tasks[node].task_id in follow
        or not set(follow).isdisjoint(plan.spec.tasks[node].groups)
    ]
    kept = _reachable(downstream, chosen)
    return [node for node in downstream[task.node] if node not in kept]


def _runs_anyway(task: TaskSpec) -> bool:
    return task.trigger_rule is TriggerRule.ALWAYS or task.role == "teardown"


def _reachable(downstream: Sequence[Sequence[int]], nodes: Iterable[int]) -> set[int]:
    found: set[int] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(downstream[node])
    return found
