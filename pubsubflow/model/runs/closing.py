"""Closing of a run that is cancelled or out of time: its teardowns still run, all else does not."""

from pubsubflow.model.runs.mapped.groups import close_group
from pubsubflow.model.runs.node_progress import UNDECIDED
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.runs.progress import Decision, Progress, resume_run
from pubsubflow.model.runs.states import TaskState


def has_teardowns_left(plan: Plan, progress: Progress) -> bool:
    """Return whether something that a setup has made is still to be cleaned up."""
    tasks = plan.spec.tasks
    return any(
        tasks[setup].role == "setup" and progress.nodes[setup].success
        for task in tasks
        if task.role == "teardown" and not _is_complete(progress, task.node)
        for setup in task.upstream
    )


def close_run(plan: Plan, progress: Progress) -> Decision:
    """Cancel all that has not ended but teardowns; return what these do.

    Args:
        plan: The DAG's version that the run has.
        progress: Changed in place; instances that were never made are taken out of it before.
    """
    for group in plan.groups:
        lasting = [node for node in group.places if plan.spec.tasks[node].role == "teardown"]
        close_group(progress, group, lasting)
    for task in plan.spec.tasks:
        entry = progress.nodes[task.node]
        if task.role == "teardown" or _is_complete(progress, task.node):
            continue
        if entry.total == UNDECIDED:
            entry.total = 1
        done = entry.success + entry.failed + entry.skipped + entry.upstream_failed
        entry.count(TaskState.CANCELLED, entry.total - done)
    progress.incomplete = sum(not entry.complete for entry in progress.nodes)
    return resume_run(plan, progress, ())


def _is_complete(progress: Progress, node: int) -> bool:
    entry = progress.nodes[node]
    return entry.total != UNDECIDED and entry.complete
