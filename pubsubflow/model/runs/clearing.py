"""Clearing of tasks: which instances of a run are cleared, and the progress without them.

A cleared task starts over: under a further attempt, with an empty journal. The events that it
emitted before stay. Its earlier fences never match again: each clearing adds a million to the
delivery numbers.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from math import prod

from msgspec import Struct

from pubsubflow.errors import NotFound
from pubsubflow.model.runs.node_progress import NodeProgress
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.runs.progress import Progress, mapped_lengths, not_followed
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.spec import DagSpec, TaskSpec
from pubsubflow.model.wire.messages import NOT_MAPPED

FAILED = (TaskState.FAILED, TaskState.UPSTREAM_FAILED, TaskState.CANCELLED)
FORKS = ("branch", "short_circuit")
_INDEX = re.compile(r"[0-9]{1,9}")
States = Mapping[tuple[int, int], TaskState]


class TaskSelection(Struct, frozen=True):
    """A selection of task instances.

    Attributes:
        tasks: Task ids, with `.<map index>` for one instance of a mapped task; all if empty.
        downstream, upstream: Select all tasks downstream, or upstream, of them as well.
        only_failed: Of all these only the instances that failed, were cancelled, or could not
            start because an upstream task failed.
    """

    tasks: tuple[str, ...] = ()
    downstream: bool = False
    upstream: bool = False
    only_failed: bool = False


def select(
    plan: Plan, progress: Progress, states: States, selection: TaskSelection
) -> set[tuple[int, int]]:
    """Return the instances to clear.

    The setups that a cleared task uses are cleared with it, and their teardowns. Live instances
    right downstream of a cleared one are cleared as well: their input is made again.
    Instances of one node are cleared together where their number may change.

    Args:
        plan: The DAG's version that the run has.
        progress: The run's.
        states: State of every instance that has one.
        selection: The instances that a user selects.

    Raises:
        NotFound: A task is unknown.
    """
    nodes, single = selected_nodes(plan, selection)
    instances: dict[int, set[int]] = {}
    chosen: dict[int, set[int]] = {}
    live: set[int] = set()
    for (node, index), state in states.items():
        instances.setdefault(node, set()).add(index)
        if not state.final:
            live.add(node)
        selected = node in nodes or index in single.get(node, ())
        if selected and (state in FAILED or not selection.only_failed):
            chosen.setdefault(node, set()).add(index)
    # What a setup made is gone by now, or goes once its teardown has run again.
    for node in plan.with_scopes(chosen) - chosen.keys():
        if node in instances:
            chosen[node] = set(instances[node])
    for task in plan.spec.tasks:
        # In topological order, so one pass reaches live tasks any number of steps downstream.
        mine, picked = instances.get(task.node, set()), chosen.get(task.node, set())
        after = any(node in chosen for node in task.upstream)
        follows = after and (picked or task.node in live)
        part = picked and picked != mine
        if follows or (part and not _same_instances(plan, task, progress)):
            chosen[task.node] = mine
    return {(node, index) for node, indexes in chosen.items() for index in indexes}


def selected_nodes(plan: Plan, selection: TaskSelection) -> tuple[set[int], dict[int, set[int]]]:
    """Return the nodes that are selected as a whole, and single instances of others.

    Raises:
        NotFound: A task is unknown.
    """
    tasks = plan.spec.tasks
    if not selection.tasks:
        return {task.node for task in tasks}, {}
    nodes_by_id = {task.task_id: task.node for task in tasks}
    nodes: set[int] = set()
    single: dict[int, set[int]] = {}
    for name in selection.tasks:
        task_id, _, index = name.rpartition(".")
        if name in nodes_by_id:
            nodes.add(nodes_by_id[name])
        elif task_id in nodes_by_id and _INDEX.fullmatch(index):
            single.setdefault(nodes_by_id[task_id], set()).add(int(index))
        else:
            raise NotFound("task", name)
    sources = nodes | single.keys()
    if selection.downstream:
        nodes |= _reach(sources, plan.downstream) - single.keys()
    if selection.upstream:
        nodes |= _reach(sources, [task.upstream for task in tasks]) - single.keys()
    return nodes, single


def _reach(sources: Iterable[int], edges: Sequence[tuple[int, ...]]) -> set[int]:
    found: set[int] = set()
    waiting = list(sources)
    while waiting:
        for node in edges[waiting.pop()]:
            if node not in found:
                found.add(node)
                waiting.append(node)
    return found


def _same_instances(plan: Plan, task: TaskSpec, progress: Progress) -> bool:
    """Return whether a mapped task has the same instances again, as its inputs are unchanged."""
    if task.role in FORKS or not all(progress.nodes[node].complete for node in task.upstream):
        return False
    sizes = mapped_lengths(plan, task, progress)
    return not isinstance(sizes, str) and prod(sizes) == progress.nodes[task.node].total


def clear(
    progress: Progress, states: States, chosen: Iterable[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Remove instances from a run's progress, which is changed in place.

    Returns:
        Those whose node was not cleared as a whole: they run again without a new decision.
    """
    by_node: dict[int, set[int]] = {}
    for node, index in chosen:
        by_node.setdefault(node, set()).add(index)
    sizes: dict[int, int] = {}
    for node, _ in states:
        sizes[node] = sizes.get(node, 0) + 1
    again = []
    whole: set[int] = set()
    for node, indexes in by_node.items():
        entry = progress.nodes[node]
        if len(indexes) == sizes[node]:
            progress.nodes[node] = NodeProgress(left_out_by=entry.left_out_by)
            whole.add(node)
            continue
        for index in indexes:
            # The node keeps its number of instances, and the ended one is not counted any more.
            if states[node, index].final:
                entry.count(states[node, index], -1)
        again += [(node, index) for index in indexes]
    for entry in progress.nodes:
        if entry.left_out_by:
            # A branch that runs again decides anew.
            entry.left_out_by = [node for node in entry.left_out_by if node not in whole]
    _count_incomplete(progress)
    progress.clear_number += 1
    progress.closing = ""
    return again


def rebuild(
    plan: Plan,
    ended: Iterable[tuple[int, int, TaskState, int | None]],
    chosen: Mapping[int, Iterable[object]],
    clear_number: int,
) -> Progress:
    """Return the progress that a run had when it ended.

    Args:
        plan: The DAG's version that the run has.
        ended: Node, map index, state and length of the result of every instance that has ended.
        chosen: The return values of the successful instances of branches and short circuits.
        clear_number: How often tasks of the run were cleared.
    """
    progress = Progress([NodeProgress() for _ in plan.spec.tasks], 0, clear_number)
    for node, index, state, length in ended:
        entry = progress.nodes[node]
        entry.total = max(entry.total, 0) + 1
        entry.count(state)
        if index == NOT_MAPPED:
            entry.length = length
    for node, results in chosen.items():
        task = plan.spec.tasks[node]
        for follow in (follow_of(task, result) for result in results):
            for left_out in () if follow is None else not_followed(plan, task, follow):
                progress.nodes[left_out].left_out_by.append(node)
    _count_incomplete(progress)
    return progress


def _count_incomplete(progress: Progress) -> None:
    progress.incomplete = sum(not entry.complete for entry in progress.nodes)


def follow_of(task: TaskSpec, result: object) -> tuple[str, ...] | None:
    """Return the task ids that a branch followed, from its result."""
    if task.role == "short_circuit":
        return None if result else ()
    if isinstance(result, str):
        return (result,)
    return tuple(map(str, result)) if isinstance(result, list | tuple) else ()


def compatible(old: DagSpec, new: DagSpec) -> bool:
    """Return whether a run of one version may continue with another: every task keeps its node."""
    pairs = zip(old.tasks, new.tasks, strict=False)
    return len(old.tasks) <= len(new.tasks) and all(_shape(a) == _shape(b) for a, b in pairs)


def _shape(task: TaskSpec) -> tuple[object, ...]:
    return task.task_id, task.upstream, task.inputs, task.mapped_arguments, task.role
