"""Topological order of a graph, and its cycles."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from heapq import heappop, heappush
from itertools import pairwise
from typing import Any, Protocol, TypeVar

from pubsubflow.authoring.source_location import SourceLocation, definition_error


class _Ordered(Hashable, Protocol):
    """A node that knows what comes before it, and the line that says so."""

    task_id: str
    upstream: dict[Any, SourceLocation | None]


N = TypeVar("N", bound=Hashable)
Ordered = TypeVar("Ordered", bound=_Ordered)


def sorted_nodes(nodes: Iterable[Ordered], dag_id: str) -> tuple[Ordered, ...]:
    """Return the nodes, upstream first, otherwise in their order.

    Raises:
        DefinitionError: They form a cycle.
    """
    found, cycle = topological({node: list(node.upstream) for node in nodes})
    if cycle:
        names = " >> ".join(node.task_id for node in cycle)
        lines = [after.upstream[before] for before, after in pairwise(cycle)]
        # The last line that was written closed the cycle.
        raise definition_error(
            f"the tasks form a cycle: {names}",
            location=max((line for line in lines if line), default=None),
            dag_id=dag_id,
            task_id=cycle[0].task_id,
        )
    return tuple(found)


def topological(upstream: Mapping[N, Sequence[N]]) -> tuple[list[N], list[N]]:
    """Return the nodes, upstream first; among candidates the first in the mapping comes first.

    Kahn's algorithm with a heap, so that the order is stable under small changes of the graph.

    Args:
        upstream: Every node → the nodes before it.

    Returns:
        The order, and a cycle (first and last are equal) among the nodes that have none; empty
        when all nodes are in the order.
    """
    nodes = list(upstream)
    rank = {node: number for number, node in enumerate(nodes)}
    waiting = {node: len(before) for node, before in upstream.items()}
    downstream: dict[N, list[N]] = {node: [] for node in nodes}
    for node, befores in upstream.items():
        for before in befores:
            downstream[before].append(node)
    ready = [number for number, node in enumerate(nodes) if not waiting[node]]
    found: list[N] = []
    while ready:
        node = nodes[heappop(ready)]
        found.append(node)
        for after in downstream[node]:
            waiting[after] -= 1
            if not waiting[after]:
                heappush(ready, rank[after])
    return found, find_cycle({node: upstream[node] for node in nodes if waiting[node]})


def find_cycle(stuck: Mapping[N, Sequence[N]]) -> list[N]:
    """Return a cycle among nodes each of which waits for another one of them."""
    if not stuck:
        return []
    path = [next(iter(stuck))]
    while True:
        node = next(before for before in stuck[path[-1]] if before in stuck)
        if node in path:
            return [node, *reversed(path[path.index(node) :])]
        path.append(node)
