"""Clearing in mapped groups: an instance goes with those of its own index, not with all others."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from pubsubflow.model.runs.mapped.groups import MappedGroup, group_total
from pubsubflow.model.runs.node_progress import UNDECIDED
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.runs.progress import Progress, mapped_lengths
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.spec import TaskSpec
from pubsubflow.model.wire.messages import NOT_MAPPED

Nodes = dict[int, set[int]]


def related(
    plan: Plan, node: int, indexes: AbstractSet[int], other: int, instances: AbstractSet[int]
) -> set[int]:
    """Return the instances of another node that belong to instances of a node.

    Args:
        plan: The DAG's version that the run has.
        node: The node.
        indexes: Map indexes of it.
        other: The other node.
        instances: All map indexes of that.
    """
    group = plan.group_of.get(node)
    if group is None or other not in group.places or NOT_MAPPED in indexes:
        return set(instances)
    return {index for index in instances if index in indexes or index == NOT_MAPPED}


def follow_in_group(
    plan: Plan,
    progress: Progress,
    states: Mapping[tuple[int, int], TaskState],
    instances: Nodes,
    chosen: Nodes,
    task: TaskSpec,
) -> None:
    """Add the instances of a group's task that go with what is cleared.

    Args:
        plan: The DAG's version that the run has.
        progress: The run's.
        states: State of every instance that has one.
        instances: Node → its map indexes.
        chosen: Node → those that are cleared; added to.
        task: A task of a mapped group, of which all before is done.
    """
    node, group = task.node, plan.group_of[task.node]
    mine = instances.get(node, set())
    cleared = any(source in chosen for source in group.sources)
    touched = any(chosen.get(member) for member in group.places)
    if cleared or (touched and not _same_elements(plan, progress, group)):
        # With other elements, all that has begun with the former ones begins anew.
        begun = any(
            not progress.nodes[member].complete or member in chosen for member in group.places
        )
        if begun and mine:
            chosen[node] = set(mine)
        return
    for before in task.upstream:
        if before not in chosen:
            continue
        follows = related(plan, before, chosen[before], node, mine)
        picked = chosen.get(node, set())
        follows = {i for i in follows if i in picked or not states[node, i].final}
        if follows:
            chosen.setdefault(node, set()).update(follows)


def _same_elements(plan: Plan, progress: Progress, group: MappedGroup) -> bool:
    """Return whether a group has as many elements as when it began."""
    if not all(progress.nodes[source].complete for source in group.sources):
        return False
    sizes = mapped_lengths(plan, group.task, progress)
    total = progress.groups[group.number].total
    return total in (UNDECIDED, group_total(sizes, plan.max_map_length))


def narrow_to_index(
    plan: Plan,
    edges: Sequence[Iterable[int]],
    nodes: set[int],
    single: Nodes,
    reached: set[int],
) -> None:
    """Select of groups that are reached from single instances these indexes alone.

    Args:
        plan: The DAG's version that the run has.
        edges: Node → the nodes of the next step.
        nodes: Those that are selected as a whole.
        single: Node → map indexes that are selected; added to.
        reached: All nodes that are reached; those of which single instances are meant are removed.
    """
    for group in plan.groups:
        starts = {node: set(found) for node, found in single.items() if node in group.places}
        if not starts:
            continue
        others = (nodes | single.keys()) - group.places.keys()
        wide = _within(edges, others, set(range(len(edges)))) | _within(
            edges, nodes & group.places.keys(), set(group.places)
        )
        for start, indexes in starts.items():
            for node in _within(edges, edges[start], set(group.places)):
                if node not in wide and node not in nodes:
                    single.setdefault(node, set()).update((*indexes, NOT_MAPPED))
                    reached.discard(node)


def _within(edges: Sequence[Iterable[int]], starts: Iterable[int], allowed: set[int]) -> set[int]:
    """Return what is reached from nodes over allowed ones alone, these included."""
    found: set[int] = set()
    waiting = [node for node in starts if node in allowed]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [after for after in edges[node] if after in allowed]
    return found
