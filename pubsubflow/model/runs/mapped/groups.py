"""Mapped task groups: what of a run's progress is kept per map index.

An index of a group is a copy of its tasks. Only indexes that have begun and not ended need a row,
so the progress grows with what runs at once, not with the length of the list. What ends without
regard to the index ends as a whole: one instance, that is not mapped.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Protocol

from msgspec import Struct, field

from pubsubflow.model.runs.node_progress import UNDECIDED, NodeProgress
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.spec import DagSpec, TaskSpec
from pubsubflow.model.wire.messages import NOT_MAPPED

OPEN, LEFT_OUT, DUE, QUEUED, BEGUN, SUCCESS, FAILED, SKIPPED, UPSTREAM_FAILED = range(9)
"""What a row says of an instance: undecided; undecided, and a branch leaves it out; to be made; in
the queue; out of the queue, as it runs or waits; ended."""

CODES = {
    TaskState.SUCCESS: SUCCESS,
    TaskState.FAILED: FAILED,
    TaskState.CANCELLED: FAILED,
    TaskState.SKIPPED: SKIPPED,
    TaskState.UPSTREAM_FAILED: UPSTREAM_FAILED,
    TaskState.RUNNING: BEGUN,
    TaskState.DEFERRED: BEGUN,
    TaskState.UP_FOR_RETRY: BEGUN,
}
"""State of an instance → what its row says; QUEUED for all others."""

BLOCK = 64
"""Indexes whose rows are kept under one key: few keys if all indexes of 10,000 are open, and few
bytes if a single one is."""

ENTRIES = (
    *(NodeProgress() for _ in (OPEN, LEFT_OUT)),
    *(NodeProgress(1) for _ in (DUE, QUEUED, BEGUN)),
    NodeProgress(1, success=1),
    NodeProgress(1, failed=1),
    NodeProgress(1, skipped=1),
    NodeProgress(1, upstream_failed=1),
)
"""What a row says → the instance as trigger rules see it; never changed."""

_NONE = NodeProgress(0)


class MappedGroup(Struct, frozen=True):
    """What follows from a DAG's spec about one of its mapped groups.

    Attributes:
        number: Its place in `Plan.groups` and `Progress.groups`.
        name: Its id.
        places: Its tasks, in topological order → their place in a row.
        sources: The nodes that its elements come from.
        task: One of its tasks: all are mapped over the same.
    """

    number: int
    name: str
    places: dict[int, int]
    sources: tuple[int, ...]
    task: TaskSpec

    @property
    def width(self) -> int:
        """Number of its tasks."""
        return len(self.places)


class GroupProgress(Struct, array_like=True, forbid_unknown_fields=True):
    """Progress of one mapped group.

    Attributes:
        total: Number of its indexes; UNDECIDED until it is known. 0 without elements: its tasks
            then end as a whole.
        opened: Number of indexes that have begun, from 0 on.
        active: Number of instances in the queue.
        rows: One byte a task and index that has begun, `BLOCK` indexes a key; a block goes when all
            of its indexes have ended.
        due: Instances to be made when there is room: index times width plus place.
        whole: Nodes that have ended as a whole.
    """

    total: int = UNDECIDED
    opened: int = 0
    active: int = 0
    rows: dict[int, bytearray] = field(default_factory=dict)
    due: list[int] = field(default_factory=list)
    whole: list[int] = field(default_factory=list)

    def code(self, group: MappedGroup, node: int, index: int) -> int:
        """Return what its row says of an instance; SUCCESS for one of a block that is gone."""
        block = self.rows.get(index // BLOCK)
        at = index % BLOCK * group.width + group.places[node]
        return SUCCESS if block is None or index >= self.opened else block[at]

    def put(self, group: MappedGroup, node: int, index: int, code: int) -> None:
        """Note something about an instance of an index that has begun."""
        self.rows[index // BLOCK][index % BLOCK * group.width + group.places[node]] = code

    def open(self, group: MappedGroup, index: int, nodes: Sequence[NodeProgress]) -> None:
        """Begin all indexes up to one."""
        ended = {group.places[node]: CODES[nodes[node].state] for node in self.whole}
        row = bytes(ended.get(place, OPEN) for place in range(group.width))
        while self.opened <= index:
            self.rows.setdefault(self.opened // BLOCK, bytearray()).extend(row)
            self.opened += 1

    def revoke(self, group: MappedGroup) -> None:
        """Take back the beginning of the last index."""
        self.opened -= 1
        block = self.rows[self.opened // BLOCK]
        del block[-group.width :]
        if not block:
            del self.rows[self.opened // BLOCK]

    def open_indexes(self, group: MappedGroup, node: int | None = None) -> Iterator[int]:
        """Yield the indexes of which a task, or a certain one, is undecided or has not ended."""
        for number, block in sorted(self.rows.items()):
            for place in range(0, len(block), group.width):
                row = block[place : place + group.width]
                code = min(row) if node is None else row[group.places[node]]
                if code < SUCCESS:
                    yield number * BLOCK + place // group.width

    def end_whole(self, group: MappedGroup, node: int, state: TaskState) -> None:
        """Note that a task has ended as a whole, which its rows say as well."""
        self.whole.append(node)
        for block in self.rows.values():
            rows = len(block) // group.width
            block[group.places[node] :: group.width] = bytes([CODES[state]]) * rows
        self.close_all(group)

    def close(self, group: MappedGroup, index: int) -> None:
        """Drop the block of an index if all of it has begun and ended."""
        number = index // BLOCK
        block = self.rows[number]
        at = index % BLOCK * group.width
        # Its own row first: most often that has not ended yet.
        if min(block[at : at + group.width]) < SUCCESS or min(block) < SUCCESS:
            return
        if self.opened in (self.total, max(self.opened, (number + 1) * BLOCK)):
            del self.rows[number]

    def close_all(self, group: MappedGroup) -> None:
        """Drop all blocks of which all has begun and ended."""
        for number in list(self.rows):
            self.close(group, number * BLOCK)

    def leave_out(self, group: MappedGroup, nodes: Iterable[int], index: int) -> None:
        """Note what a branch or a short circuit of an index leaves out."""
        for node in nodes:
            if node in group.places and self.code(group, node, index) == OPEN:
                self.put(group, node, index, LEFT_OUT)


class Instances:
    """The entries of a run's nodes as a task of one map index sees them."""

    def __init__(
        self, nodes: list[NodeProgress], group: MappedGroup, state: GroupProgress, index: int
    ) -> None:
        self._nodes = nodes
        self._group = group
        self._whole = state.whole
        self._block = state.rows[index // BLOCK]
        self._first = index % BLOCK * group.width

    def __getitem__(self, node: int) -> NodeProgress:
        place = self._group.places.get(node)
        if place is None or node in self._whole:
            return self._nodes[node]
        return ENTRIES[self._block[self._first + place]]


class BeforeIndexes:
    """The entries of a run's nodes as a task of a group sees them before it has indexes.

    Tasks of the group that have their indexes are none that it waits for.
    """

    def __init__(self, nodes: list[NodeProgress], group: MappedGroup, state: GroupProgress) -> None:
        self._nodes = nodes
        self._group = group
        self._whole = state.whole

    def __getitem__(self, node: int) -> NodeProgress:
        entry = self._nodes[node]
        if entry.total == UNDECIDED or node in self._whole or node not in self._group.places:
            return entry
        return _NONE


class ProgressOfGroups(Protocol):
    """The progress of a run, as far as groups are concerned."""

    nodes: list[NodeProgress]
    groups: list[GroupProgress]


def mapped_groups(spec: DagSpec) -> tuple[MappedGroup, ...]:
    """Return the mapped groups of a DAG."""
    members: dict[str, list[TaskSpec]] = {}
    for task in spec.tasks:
        if task.map_group:
            members.setdefault(task.map_group, []).append(task)
    return tuple(
        MappedGroup(
            number,
            name,
            {task.node: place for place, task in enumerate(tasks)},
            tuple(node for each in tasks[0].mapped_arguments for node in each.sources()),
            tasks[0],
        )
        for number, (name, tasks) in enumerate(members.items())
    )


def restore_group(
    progress: ProgressOfGroups, group: MappedGroup, states: Mapping[tuple[int, int], TaskState]
) -> None:
    """Set what the progress says of a group, from the instances that there are.

    Args:
        progress: Changed in place; `total` of the group stays, unless it is empty.
        group: The group.
        states: The state of every instance that has one.
    """
    state = progress.groups[group.number]
    own = {key: found for key, found in states.items() if key[0] in group.places}
    for node in group.places:
        progress.nodes[node] = NodeProgress(left_out_by=progress.nodes[node].left_out_by)
    state.due, state.active = [], 0
    state.whole = []
    state.rows, state.opened = {}, 0
    state.open(group, max((index for _, index in own), default=-1), progress.nodes)
    if not own:
        state.total = UNDECIDED
    for (node, index), found in own.items():
        entry = progress.nodes[node]
        entry.total = 1 if index == NOT_MAPPED else state.total
        if found.final:
            entry.count(found)
        if index == NOT_MAPPED:
            state.end_whole(group, node, found)
            continue
        code = CODES.get(found, QUEUED)
        state.put(group, node, index, code)
        state.active += code == QUEUED
    state.close_all(group)


def mark_in_group(
    progress: ProgressOfGroups, group: MappedGroup, node: int, indexes: Iterable[int], to: TaskState
) -> None:
    """Note instances of a group that people have given a final state.

    Args:
        progress: Changed in place; it counts these instances already.
        group: The group.
        node: The task.
        indexes: The map indexes; NOT_MAPPED for the task as a whole.
        to: The state.
    """
    state = progress.groups[group.number]
    for index in indexes:
        if index == NOT_MAPPED:
            state.end_whole(group, node, to)
            continue
        if state.total == UNDECIDED:
            state.total = progress.nodes[node].total
        state.open(group, index, progress.nodes)
        state.put(group, node, index, CODES[to])
    state.close_all(group)


def close_group(progress: ProgressOfGroups, group: MappedGroup, lasting: Iterable[int]) -> None:
    """Cancel every instance of a group that has not ended, apart from those of some nodes.

    Args:
        progress: Changed in place, but for the counts of the nodes.
        group: The group.
        lasting: The nodes of which instances still run.
    """
    state = progress.groups[group.number]
    if state.total == UNDECIDED:
        # Its tasks end as a whole.
        state.total = 0
    if not state.total:
        return
    kept = {group.places[node] for node in lasting if node in group.places}
    state.open(group, state.total - 1, progress.nodes)
    state.due, state.active = [], 0
    for node in group.places:
        entry = progress.nodes[node]
        if entry.total == UNDECIDED and group.places[node] not in kept:
            entry.total = state.total
    for block in state.rows.values():
        for at, code in enumerate(block):
            if at % group.width not in kept and code < SUCCESS:
                block[at] = FAILED
            elif code == DUE:
                block[at] = OPEN
            state.active += block[at] == QUEUED
    state.close_all(group)


def stop_in_group(
    progress: ProgressOfGroups,
    group: MappedGroup,
    lasting: Collection[int],
    state_of: Callable[[tuple[int, int]], TaskState],
) -> list[tuple[int, int, TaskState]]:
    """Give every instance of a group that has not ended a final state, and count it.

    Args:
        progress: Changed in place.
        group: The group; without indexes, or before they are known, its tasks end as a whole.
        lasting: The nodes of which instances still run.
        state_of: The state of a node and map index.
    """
    state = progress.groups[group.number]
    open_before = _open_instances(progress, group)
    close_group(progress, group, lasting)
    stopped = []
    for node, indexes in open_before.items():
        if node in lasting:
            continue
        found = [(node, index, state_of((node, index))) for index in indexes]
        for _, index, to in found:
            progress.nodes[node].count(to)
            if index // BLOCK in state.rows:
                state.put(group, node, index, CODES[to])
        stopped += found
    return stopped


def _open_instances(progress: ProgressOfGroups, group: MappedGroup) -> dict[int, list[int]]:
    """Return which indexes of each task have not ended; none of one that ends as a whole."""
    state = progress.groups[group.number]
    return {
        node: [
            index
            for index in range(max(state.total, 0))
            if index >= state.opened or state.code(group, node, index) < SUCCESS
        ]
        for node in group.places
        if node not in state.whole
    }


def undecided(code: int) -> bool:
    """Return whether nothing is decided about an instance, by what its row says."""
    return code <= LEFT_OUT


def group_total(sizes: tuple[int, ...] | str, most: int) -> int:
    """Return the number of a group's indexes; 0 if it cannot be mapped."""
    if isinstance(sizes, str):
        return 0
    total = prod(sizes)
    return 0 if total > most else total
