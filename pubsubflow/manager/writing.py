"""Writes a ledger: one statement a table, in an order that is the same for every batch."""

from typing import Any

import msgspec

from pubsubflow.manager.ledger import Ledger, RunWork
from pubsubflow.model.messages import TaskError
from pubsubflow.model.states import RunState
from pubsubflow.store.fold import FoldTransaction

_encode = msgspec.msgpack.Encoder().encode


async def write(ledger: Ledger, transaction: FoldTransaction) -> None:
    """Write all that a ledger holds."""
    runs = sorted(ledger.runs.values(), key=lambda run: run.number)
    await _write_events(ledger, transaction)
    await _write_new_runs(ledger, transaction)
    await _write_tasks(runs, transaction)
    await _write_runs(runs, transaction)
    await transaction.write(
        "record_attempts", [(*rest, _fields(error)) for *rest, error in ledger.attempts]
    )
    await transaction.write("record_logs", ledger.logs)
    await transaction.write(
        "set_timers",
        [(t.due_at, t.kind, t.dag, t.run, t.node, t.map_index, t.attempt) for t in ledger.timers],
    )
    await transaction.write(
        "write_gates",
        [
            (
                gate.dag,
                gate.active,
                gate.queued,
                "{" + ",".join(map(str, gate.pending)) + "}",
            )
            for gate in ledger.gates.values()
            if gate.changed
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
            )
            for event in ledger.logged
        ],
    )
    await transaction.write(
        "consume_pending",
        [(run.version.dag, place, run.number) for run in ledger.new_runs for place in run.drained],
    )
    await transaction.write(
        "record_pending",
        [
            (gate.dag, place, event.number)
            for gate in ledger.gates.values()
            for place, events in enumerate(gate.fresh)
            for event in events
        ],
    )


async def _write_new_runs(ledger: Ledger, transaction: FoldTransaction) -> None:
    await transaction.write(
        "create_runs",
        [
            (
                run.number,
                run.run_id,
                run.version.dag,
                run.version.number,
                run.run_key,
                run.kind,
                run.state,
                run.params,
                run.logical_time,
                run.partition,
                run.cause,
            )
            for run in ledger.new_runs
        ],
    )
    await transaction.write(
        "queue_runs",
        [
            (run.version.dag, run.number, run.info)
            for run in ledger.new_runs
            if run.state is RunState.QUEUED
        ],
    )
    await transaction.write(
        "record_run_events",
        [
            (run.number, event.number, place)
            for run in ledger.new_runs
            for event, place in run.consumed
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
