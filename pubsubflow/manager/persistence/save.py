"""Saving of a unit of work: rare changes one by one, then what nearly every batch changes."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from msgspec.structs import astuple

from pubsubflow.manager.persistence.large_progress import encode_progress, keep_unchanged
from pubsubflow.manager.persistence.save_checks import place_released, save_checks
from pubsubflow.manager.persistence.save_waits import save_waits
from pubsubflow.manager.unit_of_work import Checks, UnitOfWork, Waits
from pubsubflow.manager.working_state import EndedTask, LiveTask, RunDraft, RunWork
from pubsubflow.model.json_values import json_text
from pubsubflow.model.runs.states import RunState
from pubsubflow.model.runs.stored.split_progress import MANY_NODES
from pubsubflow.model.schedule.condition_state import STORED_CONDITION
from pubsubflow.store.auth import audit_row
from pubsubflow.store.batches.manager_transaction import ManagerTransaction
from pubsubflow.store.codecs import encode_error
from pubsubflow.store.database import printable

_NO_WAITS = Waits()
_NO_CHECKS = Checks()
_Row = tuple[Any, ...]
_Statement = tuple[str, Sequence[Sequence[Any]]]


async def save(uow: UnitOfWork, transaction: ManagerTransaction, changes: bytes | None) -> None:
    """Write all that a unit of work holds, in an order that is the same for every batch.

    Args:
        uow: What was decided.
        transaction: Where it is written.
        changes: Its row of the change log, if it has one.
    """
    runs = sorted(uow.runs.by_id.values(), key=lambda run: run.id)
    drafts = [draft for draft in uow.schedule.drafts.values() if draft.refused is None]
    if uow.waits != _NO_WAITS:
        await save_waits(uow, transaction)
    if uow.checks != _NO_CHECKS:
        await save_checks(uow, transaction)
    for query, rows in chain(_schedule_rows(drafts, uow), _task_rows(runs, uow)):
        if rows:
            await transaction.write(query, rows)
    audits = uow.outbox.audits
    numbers = await transaction.write_batch(
        changes=[] if changes is None else [(changes,)],
        audits=[audit_row(note.entry) for note in audits],
        **_run_parts(runs, drafts, uow),
        **_event_parts(uow),
    )
    for note, number in zip(audits, numbers, strict=True):
        note.number = number
    if uow.checks.released:
        # After the rows of runs that begin to check such an event here.
        await place_released(uow, transaction)
    if uow.runs.annotations:
        # After the rows of runs that are made here.
        for each in sorted(uow.runs.annotations, key=lambda each: each.run):
            await transaction.fetch("annotate_run", *astuple(each))
    if uow.runs.named:
        await transaction.write("name_instances", uow.runs.named)


def is_saved_at_once(uow: UnitOfWork) -> bool:
    """Whether nothing follows `write_batch` when a unit of work is saved."""
    return not (uow.checks.released or uow.runs.annotations or uow.runs.named)


def _schedule_rows(drafts: Sequence[RunDraft], uow: UnitOfWork) -> Iterator[_Statement]:
    """Yield what becomes of runs that collected events, of queued runs and of stored events."""
    schedule = uow.schedule
    yield (
        "admit_collecting_runs",
        [
            (
                draft.id,
                (draft.canary or draft.dag).version.id,
                draft.params,
                draft.cause,
                draft.state,
                (draft.canary or draft.dag).source,
            )
            for draft in drafts
            if draft.stored and draft.state is not None
        ],
    )
    yield (
        "queue_runs",
        [
            (draft.dag.id, draft.id, draft.encoded_info)
            for draft in drafts
            if draft.state is RunState.QUEUED
        ],
    )
    # What is too old goes first, or a run would consume it.
    yield "expire_pending_events", [astuple(each) for each in schedule.expired]
    yield (
        "consume_pending_events",
        [
            (draft.dag.id, key, number, draft.id)
            for draft in drafts
            for key, number in draft.stored_inputs
        ],
    )
    yield "drop_pending_events", [astuple(each) for each in schedule.dropped]
    yield "delete_dead_outcomes", [astuple(each) for each in schedule.undead]
    # One row an input: the statement may touch a row but once.
    outcomes = {
        (each.event.id, each.dag, each.input, each.condition_key): each
        for each in schedule.outcomes
    }
    yield (
        "record_event_outcomes",
        [(*key, each.outcome, printable(each.reason)) for key, each in outcomes.items()],
    )


def _task_rows(runs: Sequence[RunWork], uow: UnitOfWork) -> Iterator[_Statement]:
    """Yield changes of stored tasks, and what is only ever added."""
    yield (
        "update_live_tasks",
        [
            (
                run.id,
                *key,
                task.attempt,
                task.delivery,
                task.crashes,
                task.state,
                task.chained,
                task.worker,
                task.started_at,
                task.wait_set,
                task.direct,
            )
            for run in runs
            for key, task in run.live.items()
            if task.changed and task.stored
        ],
    )
    yield (
        "insert_cleared_tasks",
        [
            (*_live_row(run, key, task), task.prior_attempts)
            for run in runs
            for key, task in run.live.items()
            if task.prior_attempts and not task.stored
        ],
    )
    yield (
        "record_attempts",
        [
            (*astuple(each)[:-2], encode_error(each.error), each.peak_memory)
            for each in uow.runs.attempts
        ],
    )
    yield "record_logs", [astuple(each) for each in uow.runs.output]
    yield "save_state_values", [astuple(row) for _, row in sorted(uow.state.rows.items())]
    yield "record_callbacks", [astuple(each) for each in uow.callbacks]
    yield "set_timers", [astuple(each)[:-1] for each in uow.timers]
    yield (
        "record_dead_letters",
        [(*astuple(each)[:-1], printable(each.reason)) for each in uow.outbox.dead_letters],
    )
    yield (
        "delete_past_waits_of_runs",
        [(run.id,) for run in runs if run.outcome is not None and run.version.plan.past],
    )
    yield (
        "delete_run_timers",
        [
            (run.id,)
            for run in runs
            if run.outcome is not None
            and (run.version.spec.timeout_seconds is not None or run.version.spec.deadlines)
        ],
    )
    yield (
        "delete_progress_chunks",
        [
            (run.id,)
            for run in runs
            if run.outcome is not None and len(run.progress.nodes) >= MANY_NODES
        ],
    )
    late = [(run.id,) for run in runs if run.outcome is not None and run.version.spec.deadlines]
    uow.outbox.has_alerts = uow.outbox.has_alerts or bool(late)
    yield "end_alerts_of_runs", late


def _run_parts(
    runs: Sequence[RunWork], drafts: Sequence[RunDraft], uow: UnitOfWork
) -> dict[str, list[_Row]]:
    """Return the parts of `write_batch` about runs and their tasks."""
    going_on = []
    chunks: list[_Row] = []
    for run in runs:
        if not run.changed:
            keep_unchanged(run.progress)
        elif run.outcome is None:
            progress, changed = encode_progress(run.progress)
            going_on.append((run, progress))
            chunks += [(run.id, *chunk) for chunk in changed]
    # Their outcome is inserted with their row: an update in the same statement sees no such row.
    made_here = {draft.id for draft in drafts if not draft.stored}
    return {
        "runs": [_run_row(draft, uow) for draft in drafts if not draft.stored],
        "run_events": [
            (draft.id, each.event.id, each.input) for draft in drafts for each in draft.events
        ],
        "removed_tasks": [(run.id, *key) for run in runs for key in run.removed],
        "ended_tasks": [
            *[_ended_row(run.id, task) for run in runs for task in run.ended_tasks],
            *[_ended_row(run_id, task) for run_id, task in uow.runs.marked],
        ],
        "live_tasks": [
            _live_row(run, key, task)
            for run in runs
            for key, task in run.live.items()
            if task.changed and not task.stored and not task.prior_attempts
        ],
        "opened_runs": [
            (
                run.id,
                run.version.dag,
                run.version.id,
                progress,
                run.encoded_info,
                run.source,
            )
            for run, progress in going_on
            if run.new
        ],
        "progressed_runs": [(run.id, progress) for run, progress in going_on if not run.new],
        "progress_chunks": chunks,
        "closed_runs": [
            (run.id, run.outcome, run.error)
            for run in runs
            if run.outcome is not None and run.id not in made_here
        ],
    }


def _event_parts(uow: UnitOfWork) -> dict[str, list[_Row]]:
    """Return the parts of `write_batch` about events, and the DAGs that decided about them."""
    dags = uow.schedule.dags.values()
    conditions = [(dag, each) for dag in dags for each in dag.conditions.values() if each.changed]
    return {
        "events": [
            (
                event.id,
                event.info.event_id,
                uow.log.datasets[event.info.dataset],
                bytes(event.extra).decode(),
                event.info.partition,
                event.info.time,
                event.info.source,
                event.run,
                event.node,
                event.map_index,
                "{" + ",".join(map(str, event.ancestry)) + "}",
                uow.now,
                event.info.trace,
            )
            for event in uow.log.recorded
        ],
        "pending": [
            (dag.id, condition.key, number, event.id)
            for dag, condition in conditions
            for number, events in enumerate(condition.new_events)
            for event in events
        ],
        "condition_states": [
            (
                dag.id,
                each.key,
                STORED_CONDITION.encode_known(each.state)
                if each.state.newer is None
                else STORED_CONDITION.encode(each.state),
                each.state.open,
            )
            for dag, each in conditions
        ],
        "dag_states": [
            (dag.id, dag.paused, dag.active, dag.queued, dag.catch_up_from)
            for dag in dags
            if dag.changed
        ],
    }


def _run_row(draft: RunDraft, uow: UnitOfWork) -> _Row:
    """Return the row of a new run; one that also ended here has its outcome at once."""
    run = uow.runs.by_id.get(draft.id)
    ended = run is not None and run.outcome is not None
    taken = draft.canary or draft.dag
    return (
        draft.id,
        draft.run_id,
        draft.dag.id,
        taken.version.id,
        draft.run_key,
        draft.kind,
        run.outcome if run is not None and ended else draft.state or RunState.QUEUED,
        json_text(draft.params) if draft.params else "{}",
        draft.logical_time,
        draft.partition,
        draft.cause,
        run.error if run is not None and ended else None,
        taken.source,
    )


def _ended_row(run_id: int, task: EndedTask) -> _Row:
    return (run_id, *astuple(task)[:-2], encode_error(task.error), task.peak_memory)


def _live_row(run: RunWork, key: tuple[int, int], task: LiveTask) -> _Row:
    return (
        run.id,
        *key,
        task.attempt,
        task.delivery,
        task.state,
        task.chained,
        task.worker,
        task.started_at,
        task.wait_set,
        task.direct,
    )
