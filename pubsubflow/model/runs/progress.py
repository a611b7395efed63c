"""Progress of a run: which tasks become ready, skipped or failed when one of them ends.

The progress holds counts per node, so it is small whatever the number of mapped instances. It is
read and written under the run's lock, so its functions may change it in place.
"""

from collections.abc import Iterable, Sequence
from math import prod

from msgspec import Struct, field

from pubsubflow.model.runs.mapped.advance import GroupAdvance
from pubsubflow.model.runs.mapped.groups import GroupProgress, MappedGroup, group_total
from pubsubflow.model.runs.mapped.lengths import after_sources, length_of
from pubsubflow.model.runs.node_progress import UNDECIDED, NodeProgress
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.runs.rules.forks import not_followed
from pubsubflow.model.runs.rules.node_rules import decide_node
from pubsubflow.model.runs.rules.trigger_rules import evaluate_rule, waits_for_more
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.model.spec import TaskSpec, TriggerRule
from pubsubflow.model.stored.values import StoredCodec, StoredValue
from pubsubflow.model.wire.messages import NOT_MAPPED

MAP_WINDOW = 250
"""Instances of a mapped task that are made at once; each that starts, or that ends or waits before
it was seen to start, makes another. So many orders are before those of other runs in the queue of
workers; and a transaction that makes 50,000 of them would delay all other runs for seconds."""


class Progress(StoredValue):
    """The progress of one run.

    Attributes:
        nodes: One entry per node.
        incomplete: Number of nodes that are not complete.
        clear_number: How often tasks of the run were cleared.
        closing: The state in which it ends once its teardowns have run; empty if all of it runs.
        closing_reason: Why.
        groups: One entry per mapped group; empty for a DAG without any.
    """

    nodes: list[NodeProgress]
    incomplete: int
    clear_number: int = 0
    closing: str = ""
    closing_reason: str = ""
    groups: list[GroupProgress] = field(default_factory=list)


STORED_PROGRESS = StoredCodec(Progress, "the progress of a run")


class Decision(Struct):
    """The consequences of a change of progress.

    Attributes:
        ready: Instances to start: (node, map index).
        resolved: Instances that end without running: (node, map index, state). Those that succeed
            here are tasks with nothing to run.
        held: Nodes that would start, but for the previous run.
        mapping_errors: Nodes that fail because they cannot be mapped, with the reason.
        ended: The run's final state, once all nodes are complete.
    """

    ready: list[tuple[int, int]] = field(default_factory=list)
    resolved: list[tuple[int, int, TaskState]] = field(default_factory=list)
    mapping_errors: dict[int, str] = field(default_factory=dict)
    held: list[int] = field(default_factory=list)
    ended: RunState | None = None


def start_run(plan: Plan) -> tuple[Progress, Decision]:
    """Start a run: return its progress and the tasks that are ready at once."""
    tasks = plan.spec.tasks
    progress = Progress([NodeProgress() for _ in tasks], len(tasks))
    if plan.groups:
        progress.groups = [GroupProgress() for _ in plan.groups]
    decision = Decision()
    # `always` does not wait for its upstream tasks.
    roots = (
        task.node for task in tasks if not task.upstream or task.trigger_rule is TriggerRule.ALWAYS
    )
    _Advance(plan, progress, decision).decide(roots)
    return progress, decision


def finish_task(
    plan: Plan,
    progress: Progress,
    node: int,
    state: TaskState,
    *,
    map_index: int = NOT_MAPPED,
    length: int | None = None,
    follow: Sequence[str] | None = None,
    replaced: bool = False,
) -> Decision:
    """Count one ended instance and decide what follows.

    Args:
        plan: The DAG's version that the run has.
        progress: Changed in place.
        node: The node of the instance.
        state: Its final state.
        map_index: Its map index.
        length: Number of elements of its result, when that is a list.
        follow: For a branch, the downstream tasks to follow; for a short circuit `()` when
            everything downstream is skipped. None otherwise.
        replaced: Another instance was made for it already, when it started.
    """
    decision = Decision()
    advance = _Advance(plan, progress, decision)
    entry = progress.nodes[node]
    entry.length = length
    if follow is not None and state is TaskState.SUCCESS:
        leave_out(plan, progress, (node, map_index), follow)
    if plan.groups and node in plan.group_of:
        advance.end_in_group(node, map_index, state)
        return decision
    # What a daemon of before saw start was not replaced: the window must not run dry.
    if not replaced or entry.total - entry.unmade - entry.ended <= MAP_WINDOW:
        _make_next(progress, node, decision)
    advance.count(node, state)
    return decision


def leave_out(plan: Plan, progress: Progress, fork: tuple[int, int], follow: Sequence[str]) -> None:
    """Note what a branch or a short circuit leaves out; one of a mapped group at its index.

    Args:
        plan: The DAG's version that the run has.
        progress: Changed in place.
        fork: Its node and map index.
        follow: See `finish_task`.
    """
    node, map_index = fork
    nodes = not_followed(plan, plan.spec.tasks[node], follow)
    if plan.groups and node in plan.group_of:
        group = plan.group_of[node]
        progress.groups[group.number].leave_out(group, nodes, map_index)
        return
    for left_out in nodes:
        progress.nodes[left_out].left_out_by += (node,)


def replace_queued(plan: Plan, progress: Progress, node: int, map_index: int) -> Decision:
    """Make another instance of a mapped task, or group, for one that has started, or waits."""
    decision = Decision()
    if plan.groups and node in plan.group_of:
        _Advance(plan, progress, decision).replace_in_group(node, map_index)
    else:
        _make_next(progress, node, decision)
    return decision


def release_held(plan: Plan, progress: Progress, node: int) -> Decision:
    """Start a node that was held for the previous run, if its rule still says so."""
    decision = Decision()
    progress.nodes[node].past_met = True
    _Advance(plan, progress, decision).decide([node])
    return decision


def take_unmade(progress: Progress) -> list[tuple[int, int]]:
    """Return the instances that were never made, of a run that is cancelled: they never will be."""
    found = []
    for node, entry in enumerate(progress.nodes):
        found += [(node, index) for index in range(entry.total - entry.unmade, entry.total)]
        entry.unmade = 0
    return found


def _make_next(progress: Progress, node: int, decision: Decision) -> None:
    entry = progress.nodes[node]
    if entry.unmade:
        decision.ready.append((node, entry.total - entry.unmade))
        entry.unmade -= 1


def resume_run(plan: Plan, progress: Progress, again: Iterable[tuple[int, int]]) -> Decision:
    """Continue a run of which tasks were cleared.

    Args:
        plan: The DAG's version that the run has.
        progress: Without the cleared instances; changed in place.
        again: Instances to run again, of nodes that were not cleared as a whole.
    """
    decision = Decision(ready=sorted(again))
    _Advance(plan, progress, decision).decide(range(len(progress.nodes)))
    if not progress.incomplete:  # tasks were marked, and nothing is left to run
        decision.ended = run_outcome(plan, progress)
    return decision


class _Advance:
    """One decision in the making: changes the progress, collects the consequences."""

    def __init__(self, plan: Plan, progress: Progress, decision: Decision) -> None:
        self._plan = plan
        self._downstream = plan.concerned
        self._progress = progress
        self._decision = decision

    def count(self, node: int, state: TaskState) -> None:
        """Count an ended instance, then decide about the nodes downstream."""
        entry = self._progress.nodes[node]
        known = bool(entry.success), bool(entry.failed), bool(entry.upstream_failed)
        entry.count(state)
        if entry.complete:
            self._completed(1)
        elif known == (bool(entry.success), bool(entry.failed), bool(entry.upstream_failed)):
            # Of a node that is not complete a rule asks only whether any instance ended so.
            return
        self.decide(self._downstream[node])

    def decide(self, nodes: Iterable[int]) -> None:
        """Decide about nodes with a changed upstream node, and about all that follows."""
        waiting = list(nodes)
        while waiting:
            node = waiting.pop(0)
            if self._plan.groups and node in self._plan.group_of:
                waiting.extend(self._decide_in_group(node))
            elif self._progress.nodes[node].total == UNDECIDED and self._decide_one(node):
                waiting.extend(self._downstream[node])

    def end_in_group(self, node: int, map_index: int, state: TaskState) -> None:
        """Count an ended instance of a mapped group, then decide about all that follows."""
        groups = self._groups(self._plan.group_of[node])
        groups.end(node, map_index, state)
        self.decide(self._take(groups))

    def replace_in_group(self, node: int, map_index: int) -> None:
        """Make another instance for one of a mapped group that has started, or waits."""
        groups = self._groups(self._plan.group_of[node])
        groups.replace(node, map_index)
        self.decide(self._take(groups))

    def _groups(self, group: MappedGroup) -> GroupAdvance:
        return GroupAdvance(
            self._plan, self._progress, group, window=MAP_WINDOW, completed=self._completed
        )

    def _take(self, groups: GroupAdvance) -> list[int]:
        """Take over the decisions about a group; return the nodes outside that are concerned."""
        self._decision.ready += groups.ready
        self._decision.resolved += groups.resolved
        return list(groups.concerned)

    def _decide_in_group(self, node: int) -> list[int]:
        """Decide about a task of a mapped group; return the nodes to decide about next."""
        group, entry = self._plan.group_of[node], self._progress.nodes[node]
        state = self._progress.groups[group.number]
        if entry.total != UNDECIDED and entry.complete:
            return []
        if state.total == UNDECIDED:
            # The number of its indexes first: without any, its tasks end as a whole.
            if not all(self._progress.nodes[source].complete for source in group.sources):
                return []
            sizes = mapped_lengths(self._plan, group.task, self._progress)
            state.total = group_total(sizes, self._plan.max_map_length)
        if not state.total:
            ends = entry.total == UNDECIDED and self._decide_one(node)
            return list(self._downstream[node]) if ends else []
        groups = self._groups(group)
        whole = groups.decide(node)
        if whole is None:
            return self._take(groups)
        self._resolve(node, whole)
        groups.end_whole(node, whole)
        return list(self._downstream[node])

    def _decide_one(self, node: int) -> bool:
        """Start or resolve a node if its rule says so; return whether it is complete now."""
        task, entry = self._plan.spec.tasks[node], self._progress.nodes[node]
        if entry.left_out_by or self._plan.scopes or self._plan.spec.by_instance:
            left_out = bool(entry.left_out_by)
            result = decide_node(self._plan, task, self._progress.nodes, left_out=left_out)
        elif task.upstream and waits_for_more(
            task.trigger_rule, self._progress.nodes, task.upstream
        ):
            return False
        else:
            upstream = [self._progress.nodes[number] for number in task.upstream]
            result = evaluate_rule(task.trigger_rule, upstream)
        if self._plan.spec.by_instance and task.mapped_arguments:
            result = after_sources(self._plan, task, self._progress.nodes, result)
        if result is TaskState.QUEUED and task.depends_on_past and self._hold(node):
            return False
        if result is TaskState.QUEUED and task.mapped_arguments:
            result = self._expand(task)
        elif result is TaskState.QUEUED and task.kind == "empty" and task.start_wait is None:
            result = TaskState.SUCCESS
        if result is TaskState.QUEUED:
            self._progress.nodes[node].total = 1
            self._decision.ready.append((node, NOT_MAPPED))
            return False
        if result is None:
            return False
        self._resolve(node, result)
        return True

    def _hold(self, node: int) -> bool:
        """Hold a node until the previous run is as it needs it."""
        if self._progress.nodes[node].past_met:
            return False
        self._decision.held.append(node)
        return True

    def _expand(self, task: TaskSpec) -> TaskState | None:
        """Start a mapped task; return the state in which it ends at once, if it does."""
        nodes = self._progress.nodes
        # Rules such as `one_success` may start a task before all that it is mapped over is known.
        if not all(
            nodes[node].complete for each in task.mapped_arguments for node in each.sources()
        ):
            return None
        if task.kind == "empty" and task.start_wait is None and not task.map_group:
            return TaskState.SUCCESS
        sizes = mapped_lengths(self._plan, task, self._progress)
        if isinstance(sizes, str):
            self._decision.mapping_errors[task.node] = sizes
            return TaskState.FAILED
        total = prod(sizes)
        if total > self._plan.max_map_length:
            self._decision.mapping_errors[task.node] = (
                f"it would have {total:,} instances, and {self._plan.max_map_length:,} is the most "
                "(the setting max_map_length of the manager)"
            )
            return TaskState.FAILED
        # Without elements there is nothing to run, and the tasks that follow must go on.
        if total == 0:
            return TaskState.SKIPPED
        nodes[task.node].total = total
        # Those that wait before they begin occupy nothing, and would block the window.
        made = total if task.start_wait is not None else min(total, MAP_WINDOW)
        nodes[task.node].unmade = total - made
        self._decision.ready.extend((task.node, index) for index in range(made))
        return None

    def _resolve(self, node: int, state: TaskState) -> None:
        entry = self._progress.nodes[node]
        entry.total = 1
        entry.count(state)
        self._decision.resolved.append((node, NOT_MAPPED, state))
        self._completed(1)

    def _completed(self, nodes: int) -> None:
        self._progress.incomplete -= nodes
        if not self._progress.incomplete:
            self._decision.ended = run_outcome(self._plan, self._progress)


def mapped_lengths(plan: Plan, task: TaskSpec, progress: Progress) -> tuple[int, ...] | str:
    """Return the length of each mapped argument, or the reason why one has none.

    A task that did not succeed has no elements.
    """
    sizes = []
    for argument in task.mapped_arguments:
        if argument.node is None and not argument.joined:
            sizes.append(argument.length or 0)
            continue
        length = length_of(plan, argument, progress.nodes)
        if length is None:
            name = argument.name or "expand_kwargs"
            return f"it is mapped over a result that is not a list or dict ({name})"
        sizes.append(length)
    return tuple(sizes)


def mapped_indexes(sizes: Sequence[int], map_index: int) -> tuple[int, ...]:
    """Return an instance's index into each mapped argument; the last argument runs fastest."""
    indexes: list[int] = []
    for size in reversed(sizes):
        map_index, index = divmod(map_index, size)
        indexes.append(index)
    return tuple(reversed(indexes))


def run_outcome(plan: Plan, progress: Progress) -> RunState:
    """Return a complete run's state: failed when a leaf has failed."""
    failed = (TaskState.FAILED, TaskState.UPSTREAM_FAILED)
    return (
        RunState.FAILED
        if any(progress.nodes[node].state in failed for node in plan.leaves)
        else RunState.SUCCESS
    )
