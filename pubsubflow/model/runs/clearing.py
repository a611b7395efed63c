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
from pubsubflow.model.runs.mapped.clearing import follow_in_group, narrow_to_index, related
from pubsubflow.model.runs.mapped.groups import GroupProgress, group_total, restore_group
from pubsubflow.model.runs.node_progress import UNDECIDED, NodeProgress
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.runs.progress import Progress, leave_out, mapped_lengths
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.spec import DagSpec, TaskSpec
from pubsubflow.model.wire.messages import NOT_MAPPED

FAILED = (TaskState.FAILED, TaskState.UPSTREAM_FAILED, TaskState.CANCELLED)
FORKS = ("branch", "short_circuit")
_INDEX = re.compile(r"[0-9]{1,9}")
States = Mapping[tuple[int, int], TaskState]
Choices = Mapping[tuple[int, int], object]
"""Node and map index of successful branches and short circuits → what they returned."""
Nodes = dict[int, set[int]]


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
    _add_scopes(plan, instances, chosen)
    for task in plan.spec.tasks:
        # In topological order, so one pass reaches live tasks any number of steps downstream.
        if plan.groups and task.node in plan.group_of:
            follow_in_group(plan, progress, states, instances, chosen, task)
            continue
        mine, picked = instances.get(task.node, set()), chosen.get(task.node, set())
        after = any(node in chosen for node in task.upstream)
        follows = after and (picked or task.node in live)
        part = picked and picked != mine
        if follows or (part and not _same_instances(plan, task, progress)):
            chosen[task.node] = mine
    return {(node, index) for node, indexes in chosen.items() for index in indexes if indexes}


def _add_scopes(plan: Plan, instances: Nodes, chosen: Nodes) -> None:
    """Add the setups that cleared tasks use, and their teardowns."""
    # What a setup made is gone by now, or goes once its teardown has run again.
    if not plan.scopes:
        return
    for node, indexes in list(chosen.items()):
        for other in plan.with_scopes([node]) - {node}:
            if other in instances:
                found = related(plan, node, indexes, other, instances[other])
                chosen.setdefault(other, set()).update(found)


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
    for wanted, edges in (
        (selection.downstream, plan.downstream),
        (selection.upstream, [task.upstream for task in tasks]),
    ):
        reached = _reach(sources, edges) - single.keys() if wanted else set()
        if wanted and plan.groups:
            # From an instance of a mapped group, those of the same index alone.
            narrow_to_index(plan, edges, nodes, single, reached)
        nodes |= reached
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
    plan: Plan,
    progress: Progress,
    states: States,
    chosen: Iterable[tuple[int, int]],
    choices: Choices,
) -> list[tuple[int, int]]:
    """Remove instances from a run's progress, which is changed in place.

    Args:
        plan: The DAG's version that the run has.
        progress: The run's.
        states: State of every instance that has one.
        chosen: Those to remove.
        choices: Of the branches and short circuits in mapped groups.

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
    for node in by_node.keys() - plan.group_of.keys():
        indexes, entry = by_node[node], progress.nodes[node]
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
            entry.left_out_by = tuple(node for node in entry.left_out_by if node not in whole)
    _clear_in_groups(plan, progress, states, by_node, choices)
    _count_incomplete(progress)
    progress.clear_number += 1
    progress.closing = ""
    return again


def _clear_in_groups(
    plan: Plan, progress: Progress, states: States, by_node: Nodes, choices: Choices
) -> None:
    """Remove instances of mapped groups; these are decided anew, each with its index."""
    cleared = sorted({plan.group_of[each].number for each in by_node if each in plan.group_of})
    if not cleared:
        return
    remaining = {
        (node, index): state
        for (node, index), state in states.items()
        if index not in by_node.get(node, ())
    }
    for number in cleared:
        restore_group(progress, plan.groups[number], remaining)
    _leave_out_again(plan, progress, choices, set(cleared), remaining)


def _leave_out_again(
    plan: Plan, progress: Progress, choices: Choices, groups: set[int], states: States
) -> None:
    """Note what branches in groups leave out, for what is undecided."""
    for (node, index), result in choices.items():
        if node not in plan.group_of or plan.group_of[node].number not in groups:
            continue
        follow = follow_of(plan.spec.tasks[node], result)
        if follow is not None and states.get((node, index)) is TaskState.SUCCESS:
            leave_out(plan, progress, (node, index), follow)


def rebuild(
    plan: Plan,
    ended: Iterable[tuple[int, int, TaskState, int | None]],
    choices: Choices,
    clear_number: int,
) -> Progress:
    """Return the progress that a run had when it ended.

    Args:
        plan: The DAG's version that the run has.
        ended: Node, map index, state and length of the result of every instance that has ended.
        choices: Of all branches and short circuits.
        clear_number: How often tasks of the run were cleared.
    """
    progress = Progress([NodeProgress() for _ in plan.spec.tasks], 0, clear_number)
    progress.groups = [GroupProgress() for _ in plan.groups]
    states = {}
    for node, index, state, length in ended:
        entry = progress.nodes[node]
        entry.total = max(entry.total, 0) + 1
        entry.count(state)
        if index == NOT_MAPPED:
            entry.length = length
        states[node, index] = state
    for (node, index), result in choices.items():
        follow = follow_of(plan.spec.tasks[node], result)
        if follow is not None and node not in plan.group_of:
            leave_out(plan, progress, (node, index), follow)
    for group in plan.groups:
        if all(progress.nodes[source].complete for source in group.sources):
            sizes = mapped_lengths(plan, group.task, progress)
            progress.groups[group.number].total = group_total(sizes, plan.max_map_length)
        # What its elements come from may have been marked as failed since.
        begun = max((index + 1 for node, index in states if node in group.places), default=0)
        if begun > progress.groups[group.number].total:
            progress.groups[group.number].total = begun or UNDECIDED
        restore_group(progress, group, states)
    if plan.groups:
        _leave_out_again(plan, progress, choices, set(range(len(plan.groups))), states)
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
    mapped = task.map_group, task.mapped_arguments
    return task.task_id, task.upstream, task.inputs, mapped, task.role
