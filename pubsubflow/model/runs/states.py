"""The states of runs and tasks and the one table of their transitions."""

from enum import StrEnum

from pubsubflow.errors import IllegalTransition


class RunState(StrEnum):
    """Where a run stands; one that has ended goes on when somebody clears tasks of it."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing follows by itself."""
        return self not in (RunState.QUEUED, RunState.RUNNING)


class TaskState(StrEnum):
    """Where one task of one run stands; the first five are live, the others final.

    `ready` waits for a slot of what limits it: a pool, its DAG, its concurrency key. What is
    cleared has no state: its row goes, and a later one begins anew.
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
        """Whether nothing follows this state."""
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
    TaskState.READY: frozenset({TaskState.QUEUED, TaskState.CANCELLED}),
    TaskState.QUEUED: _ENDINGS
    | {TaskState.RUNNING, TaskState.DEFERRED, TaskState.UP_FOR_RETRY, TaskState.QUEUED},
    TaskState.RUNNING: _ENDINGS | {TaskState.DEFERRED, TaskState.UP_FOR_RETRY, TaskState.QUEUED},
    TaskState.DEFERRED: _ENDINGS | {TaskState.READY, TaskState.QUEUED, TaskState.UP_FOR_RETRY},
    TaskState.UP_FOR_RETRY: frozenset({TaskState.READY, TaskState.QUEUED, TaskState.CANCELLED}),
    TaskState.SUCCESS: frozenset(),
    TaskState.FAILED: frozenset(),
    TaskState.SKIPPED: frozenset(),
    TaskState.UPSTREAM_FAILED: frozenset(),
    TaskState.CANCELLED: frozenset(),
}


def check_run_transition(old: RunState, new: RunState) -> None:
    """Raise IllegalTransition unless a run may go from `old` to `new`."""
    if new not in RUN_TRANSITIONS[old]:
        raise IllegalTransition("run", old, new)


def check_task_transition(old: TaskState, new: TaskState) -> None:
    """Raise IllegalTransition unless a task may go from `old` to `new`."""
    if new not in TASK_TRANSITIONS[old]:
        raise IllegalTransition("task", old, new)
