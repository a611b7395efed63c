"""Decisions about mapped groups: each index goes on for itself, as far as the window allows."""

from collections.abc import Callable

from pubsubflow.model.runs.mapped.groups import (
    BEGUN,
    CODES,
    DUE,
    LEFT_OUT,
    QUEUED,
    GroupProgress,
    Instances,
    MappedGroup,
    ProgressOfGroups,
    undecided,
)
from pubsubflow.model.runs.node_progress import UNDECIDED
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.runs.rules.node_rules import decide_node
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
        concerned: Nodes outside of the group to decide about.
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

    def decide(self, node: int) -> TaskState | None:
        """Decide about every index of a task; return its state if it ends as a whole."""
        entry, state = self._nodes[node], self._state
        if entry.total == UNDECIDED and self._alike(node):
            left_out = bool(entry.left_out_by)
            found = decide_node(
                self._plan, self._plan.spec.tasks[node], self._nodes, left_out=left_out
            )
            if found is not TaskState.QUEUED:
                return found
        self._changed += [(node, index) for index in state.open_indexes(self._group, node)]
        self._go_on()
        return None

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
