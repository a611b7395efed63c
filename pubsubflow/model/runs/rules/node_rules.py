"""Decision about a node, given how the nodes before it have ended."""

from typing import Protocol

from pubsubflow.model.runs.node_progress import NodeProgress, all_complete
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.runs.rules.trigger_rules import evaluate_rule
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.spec import TaskSpec, TriggerRule


class Entries(Protocol):
    """The progress of nodes by number: all instances of each, or those of one map index."""

    def __getitem__(self, node: int, /) -> NodeProgress:
        """Return the entry of a node."""


def decide_node(
    plan: Plan, task: TaskSpec, entries: Entries, *, left_out: bool
) -> TaskState | None:
    """Return QUEUED when a task may start, its state when it never will, None while that is open.

    Args:
        plan: The DAG's version that the run has.
        task: The task.
        entries: The progress of the nodes, as the task sees them.
        left_out: Whether a branch or a short circuit leaves it out.
    """
    upstream = [entries[node] for node in task.upstream]
    # Before the rule: a branch that leaves a task out decides, whatever the rule says.
    if left_out:
        return TaskState.SKIPPED if all_complete(upstream) else None
    by_instance = plan.spec.by_instance
    if not plan.scopes:
        return evaluate_rule(task.trigger_rule, upstream, by_instance=by_instance)
    if task.role != "teardown" and task.trigger_rule is not TriggerRule.ALWAYS:
        made = [entries[node] for node in plan.scopes[task.node].indirect_setups]
        if not all_complete(made):
            return None
        bad = any(entry.failed or entry.upstream_failed for entry in made)
        if bad or any(entry.skipped for entry in made):
            # Not before all upstream is complete: a branch among it may leave the task out.
            state = TaskState.UPSTREAM_FAILED if bad else TaskState.SKIPPED
            return state if all_complete(upstream) else None
    tasks = plan.spec.tasks
    setups = [entries[node] for node in task.upstream if tasks[node].role == "setup"]
    return evaluate_rule(task.trigger_rule, upstream, setups, by_instance=by_instance)
