"""Saving of waits: ended ones first, so that a task's next wait may begin."""

from datetime import UTC, datetime

from msgspec.structs import astuple

from pubsubflow.manager.persistence.load import load_journals
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.model.datasets import pattern_expression
from pubsubflow.model.runs.waits import drop_failures
from pubsubflow.model.wire.waits import Wait
from pubsubflow.store.batches.manager_transaction import ManagerTransaction
from pubsubflow.store.codecs import encode_error


async def save_waits(uow: UnitOfWork, transaction: ManagerTransaction) -> None:
    """Write journals, waits that ended and waits that begin."""
    waits = uow.waits
    await _save_journals(uow, transaction)
    ended = sorted(set(waits.ended))
    rows = await transaction.fetch_rows("end_waits", [astuple(each) for each in ended])
    waits.stopped.extend(row["id"] for row in rows)
    begun = sorted(waits.begun, key=lambda each: astuple(each)[:-1])
    await transaction.write(
        "create_waits",
        [(*astuple(each)[:-1], *_columns(each.wait, uow)) for each in begun],
    )
    await transaction.write("record_event_checks", [astuple(each) for each in waits.checked])
    # The sweeper finds those that are due and that no manager has checked.
    if waits.due:
        await transaction.fetch("mark_event_waits_due", sorted(set(waits.due)))
    await _save_past_waits(uow, transaction)
    # A batch may hold several events of one trigger; only its last position counts.
    last = {each.trigger: astuple(each) for each in waits.watch_positions}
    await transaction.write("update_watch_positions", [row for _, row in sorted(last.items())])


async def _save_past_waits(uow: UnitOfWork, transaction: ManagerTransaction) -> None:
    """Write which tasks wait for the previous run, and what they wait for there."""
    waits = uow.waits
    released = set(waits.released)
    await transaction.write("add_past_waits", sorted(set(waits.held) - released))
    await transaction.write("record_past_checks", [astuple(each) for each in waits.past_checks])
    await transaction.write("delete_past_waits", sorted(released))


def _columns(wait: Wait, uow: UnitOfWork) -> tuple[object, ...]:
    """Return a wait's columns: those of its trigger, then those by which an event finds it."""
    event = wait.kind == "event"
    exact = event and not wait.pattern
    return (
        wait.kind,
        wait.name,
        wait.data,
        wait.share,
        None if wait.due_at is None else datetime.fromtimestamp(wait.due_at, UTC),
        uow.log.datasets[wait.name] if exact else None,
        pattern_expression(wait.name) if event and wait.pattern else None,
        wait.where,
        uow.now if wait.since is None else datetime.fromtimestamp(wait.since, UTC),
        wait.after,
    )


async def _save_journals(uow: UnitOfWork, transaction: ManagerTransaction) -> None:
    await transaction.write(
        "record_journal_entries",
        [
            (
                each.run,
                each.node,
                each.map_index,
                each.entry.key,
                each.entry.label,
                each.entry.kind,
                each.entry.value,
                encode_error(each.entry.error),
            )
            for each in uow.waits.journal
        ],
    )
    dropped = []
    journals = await load_journals(sorted(set(uow.waits.retried)), transaction)
    for task, journal in journals.items():
        kept = {entry.key for entry in drop_failures(journal)}
        dropped += [(*task, entry.key) for entry in journal if entry.key not in kept]
    await transaction.write("delete_journal_entries", dropped)
