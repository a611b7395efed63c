"""Writes what a ledger says about waits: ended ones first, so that a task's next may begin."""

from datetime import UTC, datetime

from pubsubflow.manager.unit_of_work import Ledger, Place
from pubsubflow.model.datasets import pattern_expression
from pubsubflow.model.runs.waits import Wait, forget_failures
from pubsubflow.model.wire.messages import Step
from pubsubflow.store.codecs import error_column, step_of
from pubsubflow.store.manager_transaction import FoldTransaction


async def write_waits(ledger: Ledger, transaction: FoldTransaction) -> None:
    """Write records, waits that ended and waits that begin."""
    await _write_records(ledger, transaction)
    ended = await transaction.fetch_rows("end_waits", sorted(set(ledger.unwaited)))
    ledger.stopped.extend(row["id"] for row in ended)
    await transaction.write(
        "begin_waits",
        [
            (*address, *_columns(wait, ledger))
            for *address, wait in sorted(ledger.waits, key=lambda row: row[:5])
        ],
    )
    await transaction.write("note_looked", ledger.looked)
    if ledger.look_due:
        await transaction.fetch("make_event_waits_due", sorted(set(ledger.look_due)))
    await transaction.write("move_watches", _last_positions(ledger))


def _columns(wait: Wait, ledger: Ledger) -> tuple[object, ...]:
    """Return a wait's columns: of the trigger's row, then of how an event finds it."""
    event = wait.kind == "event"
    exact = event and not wait.pattern
    return (
        wait.kind,
        wait.name,
        wait.data,
        wait.share,
        None if wait.due_at is None else datetime.fromtimestamp(wait.due_at, UTC),
        ledger.datasets[wait.name] if exact else None,
        pattern_expression(wait.name) if event and wait.pattern else None,
        wait.where,
        ledger.now if wait.since is None else datetime.fromtimestamp(wait.since, UTC),
        wait.after,
    )


def _last_positions(ledger: Ledger) -> list[tuple[int, int, bytes]]:
    last = {trigger: (sequence, position) for trigger, sequence, position in ledger.watched}
    return [(trigger, *rest) for trigger, rest in sorted(last.items())]


async def _write_records(ledger: Ledger, transaction: FoldTransaction) -> None:
    await transaction.write(
        "record_steps",
        [
            (
                *place,
                step.key,
                step.label,
                step.kind,
                step.value,
                error_column(step.error),
            )
            for *place, step in ledger.steps
        ],
    )
    if not ledger.retried:
        return
    dropped = []
    for place, record in (await read_records(sorted(set(ledger.retried)), transaction)).items():
        kept = {step.key for step in forget_failures(record)}
        dropped += [(*place, step.key) for step in record if step.key not in kept]
    await transaction.write("drop_steps", dropped)


async def read_records(
    places: list[Place], transaction: FoldTransaction
) -> dict[Place, list[Step]]:
    """Return what tasks have recorded; those that have recorded nothing are left out."""
    found: dict[Place, list[Step]] = {}
    for row in await transaction.fetch_rows("read_records", places):
        place = (row["run"], row["node"], row["map_index"])
        found.setdefault(place, []).append(step_of(row))
    return found
