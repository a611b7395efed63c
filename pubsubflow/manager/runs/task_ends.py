"""Ends of tasks that did not end by themselves: what runs is to stop, what waits never starts."""

from pubsubflow.manager.runs.waits import TaskWaits
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import EndedTask, InstanceKey, LiveTask, RunWork
from pubsubflow.model.runs.progress import Decision
from pubsubflow.model.runs.rules.failing_fast import Stopped, fail_fast
from pubsubflow.model.runs.states import TaskState, advance_state
from pubsubflow.model.wire.messages import CancelMessage, ResultMessage, TaskError


def remove_task(run: RunWork, key: InstanceKey, task: LiveTask) -> None:
    """Take a task out of what is live, and out of what is handed out after the commit."""
    del run.live[key]
    # What was made in this batch has no row yet.
    if task.stored:
        run.removed.append(key)
    if key in run.dispatch:
        run.dispatch.remove(key)


def end_live(
    waits: TaskWaits,
    uow: UnitOfWork,
    run: RunWork,
    key: InstanceKey,
    state: TaskState,
    error: TaskError,
    *,
    cancelled: bool = True,
) -> None:
    """End a live task without a result of it.

    Args:
        waits: The waits of tasks.
        uow: What the transaction changes.
        run: Its run.
        key: Its node and map index.
        state: The state that it ends in.
        error: Why.
        cancelled: Whether what it waits for, such as an approval, is cancelled.
    """
    task = run.live[key]
    waits.stop(run, key, task, cancelled=cancelled)
    remove_task(run, key, task)
    run.ended_tasks.append(
        EndedTask(
            *key,
            task.attempt,
            advance_state(task.state, state),
            task.worker,
            task.queued_at,
            task.started_at,
            uow.now,
            error=error,
        )
    )


def end_unmade(uow: UnitOfWork, run: RunWork, ended: Stopped, error: TaskError) -> None:
    """End an instance that was never made, with a row: clearing finds it as it finds others."""
    node, map_index, state = ended
    run.ended_tasks.append(EndedTask(node, map_index, 0, state, ended_at=uow.now, error=error))


def end_by_failure(
    waits: TaskWaits, uow: UnitOfWork, run: RunWork, failure: ResultMessage, *, replaced: bool
) -> Decision:
    """Count the failure of a task of a DAG that fails fast: all other tasks are stopped.

    Args:
        waits: The waits of tasks.
        uow: What the transaction changes.
        run: The run, with every live task of it.
        failure: The result of the task that failed.
        replaced: See `finish_task`.
    """
    plan = run.version.plan
    live = {key: task.state for key, task in run.live.items()}
    key = (failure.node, failure.map_index)
    stopped, decision = fail_fast(plan, run.progress, key, live, replaced=replaced)
    name = plan.spec.tasks[failure.node].task_id
    error = TaskError("FailFast", f"task {name!r} has failed, and its DAG fails fast", final=True)
    for each in stopped:
        if each[:2] in run.live:
            end_live(waits, uow, run, each[:2], each[2], error)
        else:
            end_unmade(uow, run, each, error)
    running = tuple(each[:2] for each in stopped if each[:2] in live)
    if running:
        uow.outbox.cancellations.append(CancelMessage(run.id, error.message, running))
    return decision
