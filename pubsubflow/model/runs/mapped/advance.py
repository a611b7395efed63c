"""Decisions about mapped groups: each index goes on for itself, as far as the window allows."""

from collections.abc import Callable

from pubsubflow.model.runs.mapped.groups import (
    BEGUN,
    CODES,
    DUE,
    LEFT_OUT,
    QUEUED,
    BeforeIndexes,
    GroupProgress,
    Instances,
    MappedGroup,
    ProgressOfGroups,
    undecided,
)
from pubsubflow.model.runs.node_progress import UNDECIDED
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.runs.rules.node_rules import Entries, decide_node
from pubsubflow.model.runs.rules.trigger_rules import decides_over_instances
from pubsubflow.model.runs.states import TaskState

Instance = tuple[int, int]


class GroupAdvance:
    """The decisions about one mapped group that follow from one change of progress.

    Args:
        plan: The DAG's version that the run has.
        progress: Changed in place.
        group: The group.
        window: Instances that are made at once.
        completed: Called when every instance of a node has ended.

    Attributes:
        ready: Instances to start.
        resolved: Instances that end without running.
        concerned: Nodes to decide about: those outside of the group, and its own that may end as a
            whole.
    """

    def __init__(
        self,
        plan: Plan,
        progress: ProgressOfGroups,
        group: MappedGroup,
        *,
        window: int,
        completed: Callable[[int], None],
    ) -> None:
        self.ready: list[Instance] = []
        self.resolved: list[tuple[int, int, TaskState]] = []
        self.concerned: dict[int, None] = {}
        self._plan = plan
        self._nodes = progress.nodes
        self._group = group
        self._state: GroupProgress = progress.groups[group.number]
        self._window = window
        self._completed = completed
        self._changed: list[Instance] = []
        self._decided = False
        # Of a literal Airflow makes the indexes with the run.
        self._late = plan.spec.by_instance and bool(group.sources)

    def decide(self, node: int) -> TaskState | None:
        """Decide about every index of a task; return its state if it ends as a whole."""
        entry = self._nodes[node]
        found: TaskState | None = TaskState.QUEUED
        if entry.total == UNDECIDED and self._late:
            found = self._before_indexes(node)
        elif entry.total == UNDECIDED and self._alike(node):
            found = self._decide_node(node, self._nodes)
            if found is None:
                return None
        if found is TaskState.QUEUED:
            if self._late and entry.total == UNDECIDED:
                self._expand(node)
            else:
                self._look_again(node)
            found = None
        if found is None:
            self._go_on()
        return found

    def _decide_node(self, node: int, entries: Entries) -> TaskState | None:
        left_out = bool(self._nodes[node].left_out_by)
        return decide_node(self._plan, self._plan.spec.tasks[node], entries, left_out=left_out)

    def _before_indexes(self, node: int) -> TaskState | None:
        """Return what the rule of a task says of it as a whole: QUEUED when it gets its indexes.

        A rule that one instance can decide sees all of the group's, each other one those tasks
        alone that have ended as a whole. See `_get_relevant_upstream_map_indexes` of Airflow's
        `ti_deps.deps.trigger_rule_dep`.
        """
        if decides_over_instances(self._plan.spec.tasks[node].trigger_rule):
            return self._decide_node(node, self._nodes)
        return self._decide_node(node, BeforeIndexes(self._nodes, self._group, self._state))

    def _expand(self, node: int) -> None:
        """Give a task its indexes, and decide about these, and about what sees it so."""
        self._nodes[node].total = self._state.total
        self._look_again(node)
        for after in self._plan.concerned[node]:
            if after in self._group.places:
                self.concerned[after] = None

    def _look_again(self, node: int) -> None:
        self._changed += [(node, index) for index in self._state.open_indexes(self._group, node)]

    def end_whole(self, node: int, state: TaskState) -> None:
        """Note that a task has ended as a whole."""
        self._state.end_whole(self._group, node, state)

    def end(self, node: int, index: int, state: TaskState) -> None:
        """Count an instance that has ended, and decide about what follows."""
        self._leave_queue(node, index)
        self._end(node, index, state)
        self._go_on()

    def replace(self, node: int, index: int) -> None:
        """Make another instance for one that has started, or waits."""
        if self._leave_queue(node, index):
            self._state.put(self._group, node, index, BEGUN)
            self._go_on()

    def _leave_queue(self, node: int, index: int) -> bool:
        queued = self._state.code(self._group, node, index) == QUEUED
        self._state.active -= queued
        return queued

    def _alike(self, node: int) -> bool:
        """Return whether what is before a task is the same for every index."""
        places, whole = self._group.places, self._state.whole
        upstream = self._plan.spec.tasks[node].upstream
        setups = self._plan.scopes[node].indirect_setups if self._plan.scopes else ()
        return all(each in whole for each in (*upstream, *setups) if each in places)

    def _go_on(self) -> None:
        """Decide about what has changed, and make instances as long as there is room."""
        state, width = self._state, self._group.width
        nodes = list(self._group.places)
        while True:
            while self._changed:
                self._decide_at(*self._changed.pop())
            if state.active >= self._window:
                return
            if state.due:
                index, place = divmod(state.due.pop(0), width)
                self._make(nodes[place], index)
            elif not self._open():
                return

    def _make(self, node: int, index: int) -> None:
        # What waits before it begins is not queued, and would block the window.
        waits = self._plan.spec.tasks[node].start_wait is not None
        self._state.put(self._group, node, index, BEGUN if waits else QUEUED)
        self._state.active += not waits
        self.ready.append((node, index))

    def _open(self) -> bool:
        """Begin the next index; return whether any task of it could begin."""
        index = self._state.opened
        if index >= self._state.total:
            return False
        self._state.open(self._group, index, self._nodes)
        self._decided = False
        for node in self._group.places:
            self._decide_at(node, index)
        if not self._decided:
            self._state.revoke(self._group)
        return self._decided

    def _decide_at(self, node: int, index: int) -> None:
        state, group = self._state, self._group
        code = state.code(group, node, index)
        if not undecided(code):
            return
        task, entry = self._plan.spec.tasks[node], self._nodes[node]
        if self._late and entry.total == UNDECIDED:
            whole = self._before_indexes(node)
            if whole is TaskState.QUEUED:
                self._expand(node)
            elif whole is not None:
                # It ends as a whole then, as `decide` will say.
                self.concerned[node] = None
            return
        left_out = bool(entry.left_out_by) or code == LEFT_OUT
        view = Instances(self._nodes, group, state, index)
        found = decide_node(self._plan, task, view, left_out=left_out)
        if found is None:
            return
        if entry.total == UNDECIDED:
            # It ends as a whole then, as `decide` will say.
            if found is not TaskState.QUEUED and self._alike(node):
                return
            entry.total = state.total
        self._decided = True
        if found is TaskState.QUEUED and task.kind == "empty" and task.start_wait is None:
            found = TaskState.SUCCESS
        if found is TaskState.QUEUED:
            state.put(group, node, index, DUE)
            state.due.append(index * group.width + group.places[node])
            return
        self.resolved.append((node, index, found))
        self._end(node, index, found)

    def _end(self, node: int, index: int, state: TaskState) -> None:
        group, entry = self._group, self._nodes[node]
        self._state.put(group, node, index, CODES[state])
        entry.count(state)
        if entry.complete:
            self._completed(1)
        for after in self._plan.concerned[node]:
            if after in group.places:
                self._changed.append((after, index))
            else:
                self.concerned[after] = None
        self._state.close(group, index)
