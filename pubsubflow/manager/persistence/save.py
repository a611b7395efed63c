"""Writes a ledger: rare things one by one, then what nearly every batch changes at once."""

from collections.abc import Sequence
from typing import Any

import msgspec

from pubsubflow.manager.outbox.changes import tell
from pubsubflow.manager.persistence.save_waits import write_waits
from pubsubflow.manager.unit_of_work import Ledger, RunWork, Start
from pubsubflow.model.runs.states import RunState
from pubsubflow.model.schedule.condition_state import encode_cell
from pubsubflow.store.codecs import error_column
from pubsubflow.store.database import printable
from pubsubflow.store.manager_transaction import FoldTransaction

_encode = msgspec.msgpack.Encoder().encode
_Rows = Sequence[Sequence[Any]]


async def write(ledger: Ledger, transaction: FoldTransaction) -> None:
    """Write all that a ledger holds, in an order that is the same for every batch."""
    runs = sorted(ledger.runs.values(), key=lambda run: run.number)
    starts = [start for start in ledger.starts.values() if start.refused is None]
    await _write_starts(starts, ledger, transaction)
    await _write_fates(ledger, transaction)
    await write_waits(ledger, transaction)
    await _rewrite_tasks(runs, transaction)
    await _begin_again(runs, transaction)
    await _write_rest(ledger, transaction)
    ended = [run for run in runs if run.outcome is not None]
    timed = [run.number for run in ended if run.version.spec.timeout_seconds is not None]
    if timed:
        await transaction.fetch("drop_run_timers", timed)
    await transaction.write_batch(
        events=_events(ledger),
        runs=_new_runs(starts, ledger),
        run_events=[
            (start.number, event.number, place) for start in starts for event, place in start.fresh
        ],
        removed_tasks=[(run.number, *key) for run in runs for key in run.removed],
        ended_tasks=_ended_tasks(runs),
        live_tasks=_live_tasks(runs, again=False),
        opened_runs=[
            (run.number, run.version.dag, run.version.number, _encode(run.progress), run.info)
            for run in runs
            if run.new and run.changed and run.outcome is None
        ],
        progressed_runs=[
            (run.number, _encode(run.progress))
            for run in runs
            if run.changed and not run.new and run.outcome is None
        ],
        closed_runs=[
            (run.number, run.outcome, run.error) for run in ended if not _made_here(run, ledger)
        ],
        pending=_pending(ledger),
        cells=[
            (gate.dag, cell.key, encode_cell(cell.cell), cell.open)
            for gate in ledger.gates.values()
            for cell in gate.cells.values()
            if cell.changed
        ],
        gates=[
            (gate.dag, gate.paused, gate.active, gate.queued, gate.since)
            for gate in ledger.gates.values()
            if gate.changed
        ],
        news=tell(ledger),
        traces=[(event.info.trace,) for event in ledger.logged],
    )


def _made_here(run: RunWork, ledger: Ledger) -> bool:
    """Whether a run's row is made in this transaction, with its outcome."""
    start = ledger.starts.get(run.number)
    return start is not None and not start.stored


def _events(ledger: Ledger) -> _Rows:
    return [
        (
            event.number,
            event.event_id,
            ledger.datasets[event.info.dataset],
            event.info.extra,
            event.info.partition,
            event.info.time,
            event.info.source,
            event.run,
            event.node,
            event.map_index,
            "{" + ",".join(map(str, event.trail)) + "}",
            ledger.now,
        )
        for event in ledger.logged
    ]


def _new_runs(starts: Sequence[Start], ledger: Ledger) -> _Rows:
    found = []
    for start in starts:
        if start.stored:
            continue
        run = ledger.runs.get(start.number)
        ended = run is not None and run.outcome is not None
        found.append(
            (
                start.number,
                start.run_id,
                start.gate.dag,
                start.gate.version.number,
                start.run_key,
                start.kind,
                run.outcome if run is not None and ended else start.state or RunState.QUEUED,
                start.params or {},
                start.logical_time,
                start.partition,
                start.cause,
                run.error if run is not None and ended else None,
            )
        )
    return found


def _ended_tasks(runs: Sequence[RunWork]) -> _Rows:
    return [
        (
            run.number,
            task.node,
            task.map_index,
            task.attempt,
            task.state,
            task.worker,
            task.queued_at,
            task.started_at,
            task.ended_at,
            task.length,
            task.value,
            error_column(task.error),
        )
        for run in runs
        for task in run.ended_tasks
    ]


def _live_tasks(runs: Sequence[RunWork], *, again: bool) -> list[tuple[Any, ...]]:
    return [
        (
            run.number,
            *key,
            task.attempt,
            task.delivery,
            task.state,
            task.chained,
            task.worker,
            task.started_at,
            task.waiting,
        )
        for run in runs
        for key, task in run.live.items()
        if task.changed and not task.stored and bool(task.base) is again
    ]


def _pending(ledger: Ledger) -> _Rows:
    return [
        (gate.dag, cell.key, place, event.number)
        for gate in ledger.gates.values()
        for cell in gate.cells.values()
        if cell.changed
        for place, events in enumerate(cell.fresh)
        for event in events
    ]


async def _write_starts(
    starts: Sequence[Start], ledger: Ledger, transaction: FoldTransaction
) -> None:
    """Write runs that collected events and start now, or stay in line; take what they consume."""
    await transaction.write(
        "admit_collected",
        [
            (start.number, start.gate.version.number, start.params, start.cause, start.state)
            for start in starts
            if start.stored and start.state is not None
        ],
    )
    await transaction.write(
        "queue_runs",
        [
            (start.gate.dag, start.number, start.info)
            for start in starts
            if start.state is RunState.QUEUED
        ],
    )
    await transaction.write("expire_pending", ledger.expiries)
    await transaction.write(
        "consume_pending",
        [
            (start.gate.dag, cell, place, start.number)
            for start in starts
            for cell, place in start.drained
        ],
    )


async def _write_fates(ledger: Ledger, transaction: FoldTransaction) -> None:
    await transaction.write("drop_pending", ledger.drops)
    await transaction.write("revive_events", ledger.revived)
    unique = {(fate.event.number, fate.dag, fate.place, fate.cell): fate for fate in ledger.fates}
    await transaction.write(
        "record_fates", [(*key, fate.fate, printable(fate.reason)) for key, fate in unique.items()]
    )


async def _rewrite_tasks(runs: Sequence[RunWork], transaction: FoldTransaction) -> None:
    await transaction.write(
        "rewrite_tasks",
        [
            (
                run.number,
                *key,
                task.attempt,
                task.delivery,
                task.crashes,
                task.state,
                task.chained,
                task.worker,
                task.started_at,
                task.waiting,
            )
            for run in runs
            for key, task in run.live.items()
            if task.changed and task.stored
        ],
    )


async def _begin_again(runs: Sequence[RunWork], transaction: FoldTransaction) -> None:
    """Make the rows of tasks that were cleared."""
    cleared = [run for run in runs if run.progress.cleared]
    if cleared:
        bases = [
            task.base
            for run in cleared
            for task in run.live.values()
            if task.changed and not task.stored and task.base
        ]
        rows = zip(_live_tasks(cleared, again=True), bases, strict=True)
        await transaction.write("begin_again", [(*row, base) for row, base in rows])


async def _write_rest(ledger: Ledger, transaction: FoldTransaction) -> None:
    await transaction.write(
        "record_attempts", [(*rest, error_column(error)) for *rest, error in ledger.attempts]
    )
    await transaction.write("record_logs", ledger.logs)
    await transaction.write(
        "set_timers",
        [
            (t.due_at, t.kind, t.dag, t.run, t.node, t.map_index, t.attempt, t.cell)
            for t in ledger.timers
        ],
    )
    await transaction.write(
        "record_dead_letters",
        [
            (letter.kind, letter.subject, letter.dag, letter.payload, printable(letter.reason))
            for letter in ledger.dead_letters
        ],
    )
