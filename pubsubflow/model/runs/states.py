"""States of runs and tasks, and the tables of their transitions.

The manager changes a state by `advance_state` alone, SQL names the old state in its WHERE, the
stateful tests hold every committed change against the tables, and the drawings in
docs/architecture.md are made from them.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from pubsubflow.errors import IllegalTransition
from pubsubflow.model.callbacks import CallbackKind


class RunState(StrEnum):
    """The state of a run; clearing tasks of a run that has ended reopens it."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether the run has ended; only clearing tasks of it changes that."""
        return self not in (RunState.QUEUED, RunState.RUNNING)


class TaskState(StrEnum):
    """The state of one task instance of a run; the first five are live, the others final.

    A `ready` task waits for a slot: of a pool, of its DAG, of its concurrency key, or for its rate
    limit. A cleared task has no state: its row is deleted, and a new one is made when the task
    runs again.
    """

    READY = "ready"
    QUEUED = "queued"
    RUNNING = "running"
    DEFERRED = "deferred"
    UP_FOR_RETRY = "up_for_retry"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"
    UPSTREAM_FAILED = "upstream_failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether the task has ended."""
        return self not in LIVE


LIVE = frozenset(
    {
        TaskState.READY,
        TaskState.QUEUED,
        TaskState.RUNNING,
        TaskState.DEFERRED,
        TaskState.UP_FOR_RETRY,
    }
)

_WITHOUT_SLOT = frozenset({TaskState.DEFERRED, TaskState.UP_FOR_RETRY})

_CLEARED = frozenset({RunState.QUEUED, RunState.RUNNING})
RUN_TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    RunState.QUEUED: frozenset({RunState.RUNNING, RunState.CANCELLED}),
    RunState.RUNNING: frozenset({RunState.SUCCESS, RunState.FAILED, RunState.CANCELLED}),
    RunState.SUCCESS: _CLEARED,
    RunState.FAILED: _CLEARED,
    RunState.CANCELLED: _CLEARED,
}

_ENDINGS = frozenset({TaskState.SUCCESS, TaskState.FAILED, TaskState.SKIPPED, TaskState.CANCELLED})
TASK_TRANSITIONS: dict[TaskState, frozenset[TaskState]] = {
    TaskState.READY: frozenset({TaskState.QUEUED, TaskState.SKIPPED, TaskState.CANCELLED}),
    TaskState.QUEUED: _ENDINGS
    | {TaskState.RUNNING, TaskState.DEFERRED, TaskState.UP_FOR_RETRY, TaskState.QUEUED}
    | {TaskState.READY},
    TaskState.RUNNING: _ENDINGS
    | {TaskState.DEFERRED, TaskState.UP_FOR_RETRY, TaskState.QUEUED, TaskState.READY},
    TaskState.DEFERRED: _ENDINGS | {TaskState.READY, TaskState.QUEUED, TaskState.UP_FOR_RETRY},
    TaskState.UP_FOR_RETRY: frozenset(
        {TaskState.READY, TaskState.QUEUED, TaskState.SKIPPED, TaskState.CANCELLED}
    ),
    TaskState.SUCCESS: frozenset(),
    TaskState.FAILED: frozenset(),
    TaskState.SKIPPED: frozenset(),
    TaskState.UPSTREAM_FAILED: frozenset(),
    TaskState.CANCELLED: frozenset(),
}

S = TypeVar("S", RunState, TaskState)


def needs_slot(state: TaskState, *, keeps_slots: bool) -> bool:
    """Return whether a live task needs its slots; one that keeps them does while it waits, too."""
    return state not in _WITHOUT_SLOT or (keeps_slots and state is TaskState.DEFERRED)


def advance_state(old: S, new: S) -> S:
    """Return the state that a run or a task enters; every change of a state goes through here.

    Raises:
        IllegalTransition: The table does not allow it.
    """
    transitions: Mapping[S, frozenset[S]] = (
        RUN_TRANSITIONS if isinstance(old, RunState) else TASK_TRANSITIONS
    )
    if new not in transitions[old]:
        raise IllegalTransition("run" if isinstance(old, RunState) else "task", old, new)
    return new


_OF_TASKS = {
    TaskState.SUCCESS: CallbackKind.SUCCESS,
    TaskState.FAILED: CallbackKind.FAILURE,
    TaskState.SKIPPED: CallbackKind.SKIPPED,
    TaskState.UP_FOR_RETRY: CallbackKind.RETRY,
}
_OF_RUNS = {RunState.SUCCESS: CallbackKind.SUCCESS, RunState.FAILED: CallbackKind.FAILURE}


def kind_of_task(state: TaskState) -> CallbackKind | None:
    """Return what is called after a task, or an attempt, has ended so; None for nothing."""
    return _OF_TASKS.get(state)


def kind_of_run(state: RunState) -> CallbackKind | None:
    """Return what is called after a run has ended so; None for nothing."""
    return _OF_RUNS.get(state)
