"""What clearing tasks does to a run: which instances go, and what is left of its progress.

A cleared task starts over: under a further attempt, with an empty record. What it emitted before
stays. Fences of its earlier life never match again: its deliveries count on from another million.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from math import prod

from msgspec import Struct

from pubsubflow.errors import NotFound
from pubsubflow.model.runs.progress import NodeProgress, Progress, factor_sizes, not_followed
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.spec import DagSpec, Plan, TaskSpec
from pubsubflow.model.wire.messages import NOT_MAPPED

LIFE = 1_000_000
"""By how much deliveries grow with every clearing of a run."""

FAILED = (TaskState.FAILED, TaskState.UPSTREAM_FAILED, TaskState.CANCELLED)
FORKS = ("branch", "short_circuit")
_INDEX = re.compile(r"[0-9]{1,9}")
States = Mapping[tuple[int, int], TaskState]


class Selection(Struct, frozen=True):
    """Which task instances are meant.

    Attributes:
        tasks: Task ids, with `.<map index>` for one instance of a mapped task; all if empty.
        downstream, upstream: Also all that follows them, or that they follow from.
        only_failed: Of all these only what failed, was cancelled, or could not start as something
            before it failed.
    """

    tasks: tuple[str, ...] = ()
    downstream: bool = False
    upstream: bool = False
    only_failed: bool = False


def first_delivery(cleared: int) -> int:
    """Return the delivery under which tasks are handed out first in a run's present life."""
    return cleared * LIFE + 1


def select(
    plan: Plan, progress: Progress, states: States, asked: Selection
) -> set[tuple[int, int]]:
    """Return the instances to clear.

    Those that live right after a cleared one go with it: what they work on is made again. Instances
    of one node are cleared together where their number may change.

    Args:
        plan: The DAG's version that the run has.
        progress: The run's.
        states: State of every instance that has one.
        asked: What is meant.

    Raises:
        NotFound: The DAG has no such task.
    """
    nodes, single = _asked_nodes(plan, asked)
    instances: dict[int, set[int]] = {}
    chosen: dict[int, set[int]] = {}
    live: set[int] = set()
    for (node, index), state in states.items():
        instances.setdefault(node, set()).add(index)
        if not state.final:
            live.add(node)
        meant = node in nodes or index in single.get(node, ())
        if meant and (state in FAILED or not asked.only_failed):
            chosen.setdefault(node, set()).add(index)
    for task in plan.spec.tasks:
        mine, picked = instances.get(task.node, set()), chosen.get(task.node, set())
        after = any(node in chosen for node in task.upstream)
        follows = after and (picked or task.node in live)
        part = picked and picked != mine
        if follows or (part and not _stays(plan, task, progress)):
            chosen[task.node] = mine
    return {(node, index) for node, indexes in chosen.items() for index in indexes}


def _asked_nodes(plan: Plan, asked: Selection) -> tuple[set[int], dict[int, set[int]]]:
    """Return the nodes that are meant whole, and single instances of others."""
    tasks = plan.spec.tasks
    if not asked.tasks:
        return {task.node for task in tasks}, {}
    numbers = {task.task_id: task.node for task in tasks}
    nodes: set[int] = set()
    single: dict[int, set[int]] = {}
    for name in asked.tasks:
        task_id, _, index = name.rpartition(".")
        if name in numbers:
            nodes.add(numbers[name])
        elif task_id in numbers and _INDEX.fullmatch(index):
            single.setdefault(numbers[task_id], set()).add(int(index))
        else:
            raise NotFound("task", name)
    sources = nodes | single.keys()
    if asked.downstream:
        nodes |= _reach(sources, plan.downstream) - single.keys()
    if asked.upstream:
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


def _stays(plan: Plan, task: TaskSpec, progress: Progress) -> bool:
    """Whether a mapped task stands on as much as when it started, all of which is there."""
    if task.role in FORKS or not all(progress.nodes[node].complete for node in task.upstream):
        return False
    sizes = factor_sizes(plan, task, progress)
    return not isinstance(sizes, str) and prod(sizes) == progress.nodes[task.node].total


def clear(
    progress: Progress, states: States, chosen: Iterable[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Take instances out of a run's progress, which is changed in place.

    Returns:
        Those of them whose node was not cleared as a whole: they are to run again as they are.
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
            if states[node, index].final:
                entry.count(states[node, index], -1)
        again += [(node, index) for index in indexes]
    for entry in progress.nodes:
        if entry.left_out_by:
            entry.left_out_by = [node for node in entry.left_out_by if node not in whole]
    _count_incomplete(progress)
    progress.cleared += 1
    return again


def rebuild(
    plan: Plan,
    ended: Iterable[tuple[int, int, TaskState, int | None]],
    chosen: Mapping[int, Iterable[object]],
    cleared: int,
) -> Progress:
    """Return the progress that a run had when it ended.

    Args:
        plan: The DAG's version that the run has.
        ended: Node, map index, state and length of the result of every instance that has ended.
        chosen: What the instances of branches and short circuits returned that succeeded.
        cleared: How often tasks of it were cleared.
    """
    progress = Progress([NodeProgress() for _ in plan.spec.tasks], 0, cleared)
    for node, index, state, length in ended:
        entry = progress.nodes[node]
        entry.total = max(entry.total, 0) + 1
        entry.count(state)
        if index == NOT_MAPPED:
            entry.length = length
    for node, results in chosen.items():
        task = plan.spec.tasks[node]
        for follow in (_follow(task, result) for result in results):
            for left_out in () if follow is None else not_followed(plan, task, follow):
                progress.nodes[left_out].left_out_by.append(node)
    _count_incomplete(progress)
    return progress


def _count_incomplete(progress: Progress) -> None:
    progress.incomplete = sum(not entry.complete for entry in progress.nodes)


def _follow(task: TaskSpec, result: object) -> tuple[str, ...] | None:
    """Return the task ids that a branch followed, as its result says."""
    if task.role == "short_circuit":
        return None if result else ()
    if isinstance(result, str):
        return (result,)
    return tuple(map(str, result)) if isinstance(result, list | tuple) else ()


def fits(old: DagSpec, new: DagSpec) -> bool:
    """Whether a run of one version may go on with another: every task keeps its place."""
    pairs = zip(old.tasks, new.tasks, strict=False)
    return len(old.tasks) <= len(new.tasks) and all(_shape(a) == _shape(b) for a, b in pairs)


def _shape(task: TaskSpec) -> tuple[object, ...]:
    return task.task_id, task.upstream, task.inputs, task.factors, task.role
