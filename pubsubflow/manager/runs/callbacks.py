"""Callbacks of tasks and runs: the rows that an outcome leaves, in its own transaction."""

from pubsubflow.manager.unit_of_work import CallbackRow, UnitOfWork
from pubsubflow.manager.working_state import InstanceKey, RunDraft, RunWork
from pubsubflow.model.alerts import deadline_due, describe_deadline
from pubsubflow.model.callbacks import CallbackKind
from pubsubflow.model.runs.states import RunState, TaskState, kind_of_run, kind_of_task
from pubsubflow.model.wire.commands import Timer
from pubsubflow.model.wire.messages import NOT_MAPPED, TaskError
from pubsubflow.store.database import printable

DEADLINE_TIMER = "deadline"


def call_for_task(
    uow: UnitOfWork,
    run: RunWork,
    key: InstanceKey,
    attempt: int,
    state: TaskState,
    error: TaskError | None,
) -> None:
    """Note the calls that follow from the outcome of a task, or of an attempt that is tried again.

    Args:
        uow: What the transaction changes.
        run: The run.
        key: Node and map index.
        attempt: The attempt that ended; 0 if there was none.
        state: The new state of the task.
        error: Of the attempt.
    """
    node, map_index = key
    task = run.version.spec.tasks[node]
    kind = kind_of_task(state)
    if kind is None:
        return
    reason = None if error is None else f"{error.type}: {error.message}"
    _add(uow, run, kind, task.callbacks, reason, state, (node, task.task_id, map_index, attempt))


def call_for_run(uow: UnitOfWork, run: RunWork, outcome: RunState, error: str | None) -> None:
    """Note the calls that follow from the outcome of a run."""
    kind = kind_of_run(outcome)
    if kind is not None:
        where = (None, None, NOT_MAPPED, 0)
        _add(uow, run, kind, run.version.spec.callbacks, error, outcome, where)


def deadline_timers(draft: RunDraft) -> list[Timer]:
    """Return the timers of the deadlines of a run that is made.

    What is called stands in the timer: when it is due, the run may be queued and its version not
    be loaded.
    """
    timers = []
    for number, spec in enumerate((draft.canary or draft.dag).version.spec.deadlines):
        due = deadline_due(spec, draft.created_at, draft.logical_time)
        if due is not None:
            key = "\n".join((describe_deadline(spec), *spec.callbacks))
            timers.append(Timer(due, DEADLINE_TIMER, draft.dag.id, draft.id, node=number, key=key))
    return timers


def _add(
    uow: UnitOfWork,
    run: RunWork,
    kind: CallbackKind,
    callbacks: dict[str, tuple[str, ...]],
    reason: str | None,
    outcome: str,
    where: tuple[int | None, str | None, int, int],
) -> None:
    dag_id = run.version.spec.dag_id
    text = None if reason is None else printable(" ".join(reason.split())[:2000])
    for position, name in enumerate(callbacks.get(kind, ())):
        uow.callbacks.append(
            CallbackRow(
                str(kind), position, name, dag_id, run.id, *where, str(outcome), text, run.source
            )
        )
