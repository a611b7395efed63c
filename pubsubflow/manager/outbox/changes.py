"""Changes of a batch: one row of the change log, written in the transaction that makes them."""

from collections.abc import Iterator
from typing import Any, cast

from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import EndedTask, LoggedEvent, RunWork
from pubsubflow.model.changes import (
    MAX_EXTRA_BYTES,
    Change,
    DatasetUpdated,
    RunChanged,
    TaskChanged,
    encode_records,
)
from pubsubflow.model.runs.states import RunState
from pubsubflow.model.wire.messages import NOT_MAPPED

_MAX_ERROR_CHARACTERS = 500


def encode_changes(uow: UnitOfWork) -> bytes | None:
    """Return the row of a batch for the change log; None for a batch that changes nothing.

    Causes come before effects: tasks that ended, the events that they emitted, runs that ended or
    began, their tasks.
    """
    runs = uow.runs.by_id.values()
    uow.outbox.run_changes = list(_run_changes(uow))
    changes: list[Change] = [*uow.outbox.dag_changes]
    changes += [_ended_task(run, task, uow) for run in runs for task in run.ended_tasks]
    changes += [_event(event, uow) for event in uow.log.recorded]
    changes += uow.checks.changes
    changes += uow.outbox.run_changes
    changes += [
        TaskChanged(
            run_id=run.info.run_id,
            dag_id=run.version.spec.dag_id,
            task_id=run.version.spec.tasks[node].task_id,
            map_index=None if map_index == NOT_MAPPED else map_index,
            state=task.state,
            attempt=task.attempt,
            time=uow.now,
        )
        for run in runs
        for (node, map_index), task in run.live.items()
        if (task.state, task.attempt) != task.stored_as
    ]
    uow.outbox.has_changes = bool(changes)
    return encode_records(changes) if changes else None


def _run_changes(uow: UnitOfWork) -> Iterator[RunChanged]:
    """Yield the states that runs have entered."""
    runs, drafts = uow.runs.by_id, uow.schedule.drafts
    for draft in drafts.values():
        if draft.refused is None and (draft.id not in runs or runs[draft.id].outcome is None):
            yield RunChanged(
                run_id=str(draft.run_id),
                dag_id=draft.dag.version.spec.dag_id,
                state=draft.state or RunState.QUEUED,
                time=uow.now,
            )
    for run in runs.values():
        if run.outcome is not None:
            yield _run(run, run.outcome, uow)
    for run in runs.values():
        if run.new and run.outcome is None and run.id not in drafts:
            yield _run(run, RunState.RUNNING, uow)
    yield from uow.outbox.queue_changes


def _run(run: RunWork, state: RunState, uow: UnitOfWork) -> RunChanged:
    return RunChanged(
        run_id=run.info.run_id,
        dag_id=run.version.spec.dag_id,
        state=state,
        error=run.error and run.error[:_MAX_ERROR_CHARACTERS],
        time=uow.now,
    )


def _ended_task(run: RunWork, task: EndedTask, uow: UnitOfWork) -> TaskChanged:
    text = None if task.error is None else f"{task.error.type}: {task.error.message}"
    return TaskChanged(
        run_id=run.info.run_id,
        dag_id=run.version.spec.dag_id,
        task_id=run.version.spec.tasks[task.node].task_id,
        map_index=None if task.map_index == NOT_MAPPED else task.map_index,
        state=task.state,
        attempt=task.attempt,
        error=text and text[:_MAX_ERROR_CHARACTERS],
        time=uow.now,
    )


def _event(event: LoggedEvent, uow: UnitOfWork) -> DatasetUpdated:
    info = event.info
    return DatasetUpdated(
        event_id=info.event_id,
        dataset=info.dataset,
        # The JSON of the extra as it is: an encoder takes Raw for what it stands for.
        extra=cast("dict[str, Any]", event.extra) if len(event.extra) <= MAX_EXTRA_BYTES else None,
        partition=info.partition,
        source=info.source,
        run_id=info.run_id,
        dag_id=info.dag_id,
        task_id=info.task_id,
        event_time=info.time,
        time=uow.now,
    )
