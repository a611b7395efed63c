"""Failing fast: the first failure of a run stops all of its other tasks, as in Airflow.

What runs has failed then, and what has not begun is skipped; teardowns still run. See
`airflow.models.taskinstance._stop_remaining_tasks`.
"""

from collections.abc import Callable, Iterable, Mapping

from pubsubflow.model.runs.mapped.groups import stop_in_group
from pubsubflow.model.runs.node_progress import UNDECIDED
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.runs.progress import Decision, Progress, finish_task, resume_run
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.wire.messages import NOT_MAPPED

Stopped = tuple[int, int, TaskState]


def fail_fast(
    plan: Plan,
    progress: Progress,
    key: tuple[int, int],
    live: Mapping[tuple[int, int], TaskState],
    *,
    replaced: bool = False,
) -> tuple[list[Stopped], Decision]:
    """Count the failure of an instance, and all that has not ended as stopped, but teardowns.

    Other instances of the task that failed go on: Airflow knows it by its name alone.

    Args:
        plan: The DAG's version that the run has.
        progress: Changed in place.
        key: Node and map index of the instance that failed.
        live: The state of every other instance that is made and has not ended.
        replaced: See `finish_task`.

    Returns:
        Node, map index and state of what is stopped, and what follows.
    """
    # Before the failure is counted: what is downstream of it is stopped as well.
    stopped = _stop_rest(plan, progress, key[0], live)
    node, map_index = key
    decision = finish_task(
        plan, progress, node, TaskState.FAILED, map_index=map_index, replaced=replaced
    )
    if decision.ended is None:
        _go_on(plan, progress, decision)
    return stopped, decision


def _stop_rest(
    plan: Plan, progress: Progress, failed: int, live: Mapping[tuple[int, int], TaskState]
) -> list[Stopped]:
    tasks = plan.spec.tasks
    lasting = {task.node for task in tasks if task.role == "teardown"} | {failed}

    def state_of(key: tuple[int, int]) -> TaskState:
        running = live.get(key) is TaskState.RUNNING
        return TaskState.FAILED if running else TaskState.SKIPPED

    stopped: list[Stopped] = []
    for group in plan.groups:
        stopped += stop_in_group(progress, group, lasting, state_of)
    for task in tasks:
        if task.node not in lasting:
            stopped += _stop(progress, task.node, live, state_of)
    progress.incomplete = sum(not entry.complete for entry in progress.nodes)
    return stopped


def _stop(
    progress: Progress,
    node: int,
    live: Iterable[tuple[int, int]],
    state_of: Callable[[tuple[int, int]], TaskState],
) -> list[Stopped]:
    """Stop what has not ended of a task that is not in a mapped group with indexes."""
    entry = progress.nodes[node]
    if entry.total == UNDECIDED:
        entry.total = 1
        keys = [(node, NOT_MAPPED)]
    elif entry.complete:
        return []
    else:
        keys = sorted(key for key in live if key[0] == node)
        keys += [(node, index) for index in range(entry.total - entry.unmade, entry.total)]
        entry.unmade = 0
    found = [(*key, state_of(key)) for key in keys]
    for *_, state in found:
        entry.count(state)
    return found


def _go_on(plan: Plan, progress: Progress, decision: Decision) -> None:
    """Add to a decision about the failure what follows of all that was stopped."""
    more = resume_run(plan, progress, ())
    decision.ready += more.ready
    decision.resolved += more.resolved
    decision.held += more.held
    decision.mapping_errors |= more.mapping_errors
    decision.ended = more.ended
