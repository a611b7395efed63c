"""Marking of tasks: people give instances of a run a final state, and what follows is decided anew.

An instance that ran loses nothing by another's marking: only what ended without having run, because
of what came before it, is decided anew. A marked instance counts as cleared, with its earlier
attempts kept, and as ended at once.
"""

from collections.abc import Collection, Mapping

from msgspec import Struct

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.model.runs.clearing import FORKS, States, TaskSelection, follow_of, selected_nodes
from pubsubflow.model.runs.mapped.groups import mark_in_group
from pubsubflow.model.runs.node_progress import UNDECIDED
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.runs.progress import Progress, leave_out
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.wire.messages import NOT_MAPPED

MARKS = frozenset({TaskState.SUCCESS, TaskState.FAILED, TaskState.SKIPPED})
_UNSTARTED = (TaskState.FAILED, TaskState.SKIPPED, TaskState.UPSTREAM_FAILED)
Key = tuple[int, int]


class Marks(Struct, frozen=True):
    """What a marking is about.

    Attributes:
        state: The state that is given.
        marked: The instances that get it.
        anew: Instances downstream of them that ended without having run: they are decided anew.
        sizes: Node of marked instances → number of its instances.
    """

    state: TaskState
    marked: frozenset[Key]
    anew: frozenset[Key]
    sizes: Mapping[int, int]

    def cleared(self, states: States) -> set[Key]:
        """Return those of all its instances that have a state, which they lose."""
        return {key for key in self.marked | self.anew if key in states}


def select_marks(
    plan: Plan,
    progress: Progress,
    states: States,
    unstarted: Collection[Key],
    selection: TaskSelection,
    state: TaskState,
) -> Marks:
    """Return what a marking is about; without tasks it is about the outcome of the run.

    A run is successful when all that has not succeeded, and was not skipped, is marked; it has
    failed when the tasks that decide its outcome are.

    Args:
        plan: The DAG's version that the run has.
        progress: The run's.
        states: State of every instance that has one.
        unstarted: Those that ended without an attempt.
        selection: The instances that a user selects.
        state: The state to give.

    Raises:
        NotFound: A task or an instance is unknown.
        InvalidInput: Single instances are selected of a task of which not all are made yet.
    """
    nodes, single = selected_nodes(plan, selection)
    kept = {state}
    if not selection.tasks and state is TaskState.FAILED:
        nodes = set(plan.leaves)
    elif not selection.tasks:
        kept.add(TaskState.SKIPPED)
    made: dict[int, set[int]] = {}
    for node, index in states:
        made.setdefault(node, set()).add(index)
    chosen = {
        (node, index)
        for node in nodes
        for index in _instances(plan, progress, node, made.get(node))
    }
    for node, indexes in single.items():
        task_id = plan.spec.tasks[node].task_id
        missing = indexes - made.get(node, set())
        group = plan.group_of.get(node)
        total = 0 if group is None else progress.groups[group.number].total
        if progress.nodes[node].unmade or any(index < total for index in missing):
            raise InvalidInput(
                f"not all instances of {task_id} are made yet: mark the whole task, or wait"
            )
        if missing:
            raise NotFound("task", f"{task_id}.{min(missing)}")
        chosen |= {(node, index) for index in indexes}
    marked = frozenset(key for key in chosen if states.get(key) not in kept)
    # The outcome of a run is about tasks that have ended, and starts none.
    after = _reached(plan, {node for node, _ in marked}) if selection.tasks else set()
    anew = frozenset(
        key
        for key in unstarted
        if key[0] in after and states[key] in _UNSTARTED and key not in marked
    )
    sizes = {node: _size(plan, progress, node, index) for node, index in marked}
    return Marks(state, marked, anew, sizes)


def apply_marks(plan: Plan, progress: Progress, marks: Marks, result: object = None) -> None:
    """Count marked instances as ended; what lost its state is out of the progress already.

    Args:
        plan: The DAG's version that the run has.
        progress: Changed in place.
        marks: What is marked.
        result: What the marked tasks returned, as people say: a branch follows it.
    """
    by_node: dict[int, list[int]] = {}
    for node, index in sorted(marks.marked):
        by_node.setdefault(node, []).append(index)
    for node, indexes in by_node.items():
        entry = progress.nodes[node]
        if entry.total == UNDECIDED:
            entry.total = marks.sizes[node]
        entry.count(marks.state, len(indexes))
        if node in plan.group_of:
            mark_in_group(progress, plan.group_of[node], node, indexes, marks.state)
        if marks.state is not TaskState.SUCCESS:
            continue
        if indexes == [NOT_MAPPED] and isinstance(result, list | dict):
            entry.length = len(result)
        task = plan.spec.tasks[node]
        if task.role in FORKS and result is not None:
            follow = follow_of(task, result)
            for index in indexes if follow is not None else ():
                leave_out(plan, progress, (node, index), follow or ())
    progress.incomplete = sum(not entry.complete for entry in progress.nodes)


def result_of_mark(plan: Plan, node: int, result: object) -> object:
    """Return the result that is stored for a task marked as successful.

    A branch, or a short circuit, for which people give none has followed everything.
    """
    task = plan.spec.tasks[node]
    if result is not None or task.role not in FORKS:
        return result
    if task.role == "short_circuit":
        return True
    return [plan.spec.tasks[each].task_id for each in plan.downstream[node]]


def _size(plan: Plan, progress: Progress, node: int, index: int) -> int:
    group = plan.group_of.get(node)
    if group is not None and index == NOT_MAPPED:
        return 1
    total = progress.nodes[node].total if group is None else progress.groups[group.number].total
    return max(total, 1)


def _instances(plan: Plan, progress: Progress, node: int, made: set[int] | None) -> set[int]:
    entry = progress.nodes[node]
    group = plan.group_of.get(node)
    if group is not None and NOT_MAPPED not in (made or ()):
        total = progress.groups[group.number].total
        if total > 0:
            return set(range(total))
    unmade = range(entry.total - entry.unmade, entry.total) if entry.unmade else ()
    return {*made, *unmade} if made else {NOT_MAPPED}


def _reached(plan: Plan, nodes: set[int]) -> set[int]:
    found: set[int] = set()
    waiting = list(nodes)
    while waiting:
        for node in plan.concerned[waiting.pop()]:
            if node not in found:
                found.add(node)
                waiting.append(node)
    return found
