"""Writes a ledger: one statement a table, in an order that is the same for every batch."""

from typing import Any

import msgspec

from pubsubflow.manager.ledger import Ledger, RunWork
from pubsubflow.model.cells import encode_cell
from pubsubflow.model.messages import TaskError
from pubsubflow.model.states import RunState
from pubsubflow.store.database import printable
from pubsubflow.store.fold import FoldTransaction

_encode = msgspec.msgpack.Encoder().encode


async def write(ledger: Ledger, transaction: FoldTransaction) -> None:
    """Write all that a ledger holds."""
    runs = sorted(ledger.runs.values(), key=lambda run: run.number)
    await _write_events(ledger, transaction)
    await _write_starts(ledger, transaction)
    await _write_fates(ledger, transaction)
    await _write_tasks(runs, transaction)
    await _write_runs(runs, transaction)
    await _write_gates(ledger, transaction)
    await transaction.write(
        "record_attempts", [(*rest, _fields(error)) for *rest, error in ledger.attempts]
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


async def _write_events(ledger: Ledger, transaction: FoldTransaction) -> None:
    await transaction.write(
        "record_events",
        [
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
        ],
    )


async def _write_starts(ledger: Ledger, transaction: FoldTransaction) -> None:
    """Write runs that were made or admitted, and what they consume."""
    starts = [start for start in ledger.starts.values() if start.refused is None]
    new = [start for start in starts if not start.stored]
    await transaction.write(
        "create_runs",
        [
            (
                start.number,
                start.run_id,
                start.gate.dag,
                start.gate.version.number,
                start.run_key,
                start.kind,
                start.state or RunState.QUEUED,
                start.params or {},
                start.logical_time,
                start.partition,
                start.cause,
            )
            for start in new
        ],
    )
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
    await transaction.write(
        "record_run_events",
        [(start.number, event.number, place) for start in starts for event, place in start.fresh],
    )


async def _write_fates(ledger: Ledger, transaction: FoldTransaction) -> None:
    await transaction.write("drop_pending", ledger.drops)
    await transaction.write("revive_events", ledger.revived)
    unique = {(fate.event.number, fate.dag, fate.place, fate.cell): fate for fate in ledger.fates}
    await transaction.write(
        "record_fates", [(*key, fate.fate, printable(fate.reason)) for key, fate in unique.items()]
    )


async def _write_gates(ledger: Ledger, transaction: FoldTransaction) -> None:
    changed = [
        (gate, cell)
        for gate in ledger.gates.values()
        for cell in gate.cells.values()
        if cell.changed
    ]
    await transaction.write(
        "record_pending",
        [
            (gate.dag, cell.key, place, event.number)
            for gate, cell in changed
            for place, events in enumerate(cell.fresh)
            for event in events
        ],
    )
    await transaction.write(
        "write_cells",
        [(gate.dag, cell.key, encode_cell(cell.cell), cell.open) for gate, cell in changed],
    )
    await transaction.write(
        "write_gates",
        [
            (gate.dag, gate.paused, gate.active, gate.queued, gate.since)
            for gate in ledger.gates.values()
            if gate.changed
        ],
    )


async def _write_tasks(runs: list[RunWork], transaction: FoldTransaction) -> None:
    await transaction.write(
        "remove_live_tasks", [(run.number, *key) for run in runs for key in run.removed]
    )
    await transaction.write(
        "record_tasks",
        [
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
                _fields(task.error),
            )
            for run in runs
            for task in run.ended_tasks
        ],
    )
    await _write_live(runs, transaction)


async def _write_live(runs: list[RunWork], transaction: FoldTransaction) -> None:
    """Write live tasks that are new or have changed."""
    live = [(run, key, task) for run in runs for key, task in run.live.items() if task.changed]
    await transaction.write(
        "queue_tasks",
        [
            (
                run.number,
                *key,
                task.attempt,
                task.delivery,
                task.state,
                task.chained,
                task.worker,
                task.started_at,
            )
            for run, key, task in live
            if not task.stored
        ],
    )
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
            )
            for run, key, task in live
            if task.stored
        ],
    )


async def _write_runs(runs: list[RunWork], transaction: FoldTransaction) -> None:
    changed = [run for run in runs if run.changed and run.outcome is None]
    await transaction.write(
        "open_runs",
        [
            (run.number, run.version.dag, run.version.number, _encode(run.progress), run.info)
            for run in changed
            if run.new
        ],
    )
    await transaction.write(
        "write_progress",
        [(run.number, _encode(run.progress)) for run in changed if not run.new],
    )
    ended = [run for run in runs if run.outcome is not None]
    await transaction.write("close_runs", [(run.number, run.outcome, run.error) for run in ended])
    timed = [run.number for run in ended if run.version.spec.timeout_seconds is not None]
    if timed:
        await transaction.fetch("drop_run_timers", timed)


def _fields(error: TaskError | None) -> dict[str, Any] | None:
    """Return an error by its fields' names: on the wire it is an array."""
    return None if error is None else msgspec.structs.asdict(error)
