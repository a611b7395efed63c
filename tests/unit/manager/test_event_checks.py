"""Checks in a batch without servers: what is held, what runs, what is written."""

from datetime import UTC, datetime

import anyio
import pytest

from pubsubflow.errors import InvalidInput
from pubsubflow.manager.batch import BatchProcessor
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.model.wire.commands import Backfill, RecordEvents, Replay, StartRun
from pubsubflow.model.wire.messages import NewEvent, decode_run_info
from support.empty_store import EmptyStore, dag_rows
from support.specs import check, dag, task

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def record(*uris, paused=(), specs):
    """Record events of datasets with such subscribers; return the store and what was committed."""
    store = EmptyStore(**dag_rows(*specs, paused=paused))
    events = tuple(NewEvent(uri, {"rows": 1}) for uri in uris)
    item = InboxItem(RecordEvents(events, (None,) * len(events)), done=print, failed=print)
    batch = anyio.run(BatchProcessor(now=lambda: NOW).process, [item], store)
    assert len(item.answer) == len(events), "all of them are durable"
    return store, batch.uow


def made(uow) -> list[tuple[str, str]]:
    return [(draft.dag.version.spec.dag_id, draft.kind) for draft in uow.schedule.drafts.values()]


def test_an_event_with_a_blocking_check_is_held_and_checked():
    specs = (dag("d", task("t"), on="a"), check("c", "a"), check("q", "a", blocking=False))
    store, uow = record("x://a", "x://b", specs=specs)
    assert made(uow) == [("check:c", "check"), ("check:q", "check")]
    (held,) = uow.checks.held
    assert [event.info.dataset for event in uow.log.recorded] == ["x://b"]
    assert [(each.event, each.blocking) for each in uow.checks.begun] == [
        (held, True),
        (held, False),
    ]
    runs = list(uow.runs.by_id.values())
    assert all(decode_run_info(run.encoded_info).events == (held.info,) for run in runs)
    assert [run.id for run in runs] == [each.run for each in uow.checks.begun]
    assert store.queries.index("hold_events") < store.queries.index("write_batch")


def test_a_check_that_does_not_block_sees_what_all_see():
    specs = (dag("d", task("t"), on="a"), check("q", "*", blocking=False))
    _, uow = record("x://a", specs=specs)
    assert made(uow) == [("d", "dataset"), ("check:q", "check")]
    assert not uow.checks.held
    assert len(uow.log.recorded) == 1


def test_a_paused_check_holds_and_runs_later():
    _, uow = record("x://a", paused=["check:c"], specs=(check("c", "a"),))
    assert made(uow) == []
    assert len(uow.checks.held) == 1
    assert [(each.run, each.run_id) for each in uow.checks.begun] == [(None, None)]


def test_announcements_are_not_checked():
    _, uow = record("pubsubflow://alerts/check/c", specs=(check("c", "**"),))
    assert made(uow) == []
    assert len(uow.log.recorded) == 1


def test_a_large_event_travels_with_the_run_that_checks_it():
    store = EmptyStore(**dag_rows(check("c", "a")))
    event = NewEvent("x://a", {"pad": "x" * 200_000})
    item = InboxItem(RecordEvents((event,), (None,)), done=print, failed=print)
    batch = anyio.run(BatchProcessor(now=lambda: NOW).process, [item], store)
    (run,) = batch.uow.runs.by_id.values()
    assert len(run.info.events) == 1


@pytest.mark.parametrize(
    "command", [StartRun("check:c"), Replay("check:c", NOW), Backfill("check:c")]
)
def test_runs_of_a_check_follow_from_events_alone(command):
    store = EmptyStore(
        find_dags=[{"dag_id": "check:c", "id": 1, "version": 1}], **dag_rows(check("c", "a"))
    )
    item = InboxItem(command, done=print, failed=print)
    anyio.run(BatchProcessor(now=lambda: NOW).process, [item], store)
    assert isinstance(item.error, InvalidInput)
    assert "checks run-again" in str(item.error)


def test_a_dataset_without_checks_costs_what_it_did():
    store, uow = record("x://a", specs=(dag("d", task("t"), on="b"),))
    assert not uow.checks.begun
    known = ["register_datasets", "lock_dag_states", "read_dag_versions"]
    assert store.queries == [*known, "write_batch"]
