"""Phases of a batch: only those of the kinds that occur are entered, and in lock order."""

from datetime import UTC, datetime
from uuid import uuid4

import anyio
import pytest

from pubsubflow.manager.batch import BatchProcessor
from pubsubflow.manager.chosen_keys import MAX_KEY_CHARACTERS
from pubsubflow.manager.handlers import HANDLERS, Handler, Phase
from pubsubflow.manager.handlers.events import MAX_EVENT_BYTES
from pubsubflow.manager.inbox import InboxItem, Message
from pubsubflow.manager.persistence import load
from pubsubflow.model.schedule.backfills import BackfillState
from pubsubflow.model.wire.approvals import Vote
from pubsubflow.model.wire.commands import (
    AdvanceBackfills,
    AnnotateRun,
    AnswerApproval,
    Backfill,
    CancelRun,
    ChangeBackfill,
    CheckEventWaits,
    CheckPastWaits,
    ClearTasks,
    Command,
    DeletePool,
    DiscardDeadLetters,
    FireTimers,
    MarkTasks,
    RecordEvents,
    RedriveDeadLetter,
    Replay,
    RequeueOrphans,
    ReturnDirectOrders,
    SetPaused,
    SetPool,
    SettleHeldEvents,
    StartQueuedRuns,
    StartRun,
    StoreDeadLetter,
    SweepChecks,
    Timer,
)
from pubsubflow.model.wire.messages import (
    FiredMessage,
    LogMessage,
    NewEvent,
    Outcome,
    ResultMessage,
    StartedMessage,
    WorkerLostMessage,
    encode,
)
from support.empty_store import EmptyStore
from support.specs import dag, task

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LOCKS = [
    "lock_dead_letter",
    "discard_dead_letters",
    "lock_watches",
    "lock_run_limits",
    "claim_idempotency_keys",
    "lock_runs",
    "lock_event_waits",
    "claim_timers",
    "lock_dag_states",
    "lock_held_events",
    "lock_slots",
]
ITEMS = {
    RedriveDeadLetter: RedriveDeadLetter(1),
    DiscardDeadLetters: DiscardDeadLetters((1,)),
    FiredMessage: FiredMessage(1, 1, 1, -1, -1, -1, 1, 0),
    RecordEvents: RecordEvents((NewEvent("x://a"),), ("key",)),
    ResultMessage: ResultMessage(1, 0, -1, 1, 1, "w", Outcome.SUCCESS, 0, 0),
    StartedMessage: StartedMessage(1, 0, -1, 1, 1, "w", 0),
    LogMessage: LogMessage(1, 0, -1, 1, 1, 0, "a\x00b"),
    WorkerLostMessage: WorkerLostMessage("w"),
    StoreDeadLetter: StoreDeadLetter("hook", "s", b"{}", "no"),
    StartRun: StartRun("d"),
    SetPaused: SetPaused("d", paused=True),
    Replay: Replay("d", NOW),
    Backfill: Backfill("d"),
    ChangeBackfill: ChangeBackfill(uuid4(), BackfillState.PAUSED),
    AdvanceBackfills: AdvanceBackfills((7,)),
    StartQueuedRuns: StartQueuedRuns(),
    CancelRun: CancelRun(uuid4()),
    SetPool: SetPool("p", 1),
    DeletePool: DeletePool("q"),
    ClearTasks: ClearTasks(uuid4()),
    CheckEventWaits: CheckEventWaits(((1, 0, -1),)),
    CheckPastWaits: CheckPastWaits((1,), (2,)),
    AnnotateRun: AnnotateRun(uuid4()),
    MarkTasks: MarkTasks(uuid4(), "success"),
    SettleHeldEvents: SettleHeldEvents("release", (uuid4(),), "ann"),
    SweepChecks: SweepChecks((1,)),
    ReturnDirectOrders: ReturnDirectOrders("w1", ((1, 0, -1, 1, 1),)),
    RequeueOrphans: RequeueOrphans((("w1", (1, 0, -1, 1, 1)),)),
    AnswerApproval: AnswerApproval(
        str(uuid4()), Vote(person="ann", role="operator", option="approve")
    ),
    FireTimers: FireTimers((Timer(NOW, "tick", 7, node=0, number=9),)),
}


def process(*messages, **answers) -> tuple[list[InboxItem], EmptyStore]:
    items = [InboxItem(message, done=print, failed=print) for message in messages]
    store = EmptyStore(**answers)
    processor = BatchProcessor(now=lambda: NOW)
    anyio.run(processor.process, items, store)
    return items, store


def test_every_message_and_command_has_a_handler():
    assert set(HANDLERS) == set(Command.__args__) | set(Message.__args__)
    assert set(ITEMS) == set(HANDLERS)


@pytest.mark.parametrize("kind", HANDLERS)
def test_a_handler_has_the_phases_that_it_overrides(kind):
    handler = HANDLERS[kind]
    own = {phase for phase in Phase if getattr(handler, phase) is not getattr(Handler, phase)}
    assert handler.phases == own
    assert own


def test_all_locks_are_taken_in_the_one_order():
    _, store = process(*reversed(ITEMS.values()))
    taken = [query for query in store.queries if query in LOCKS]
    assert list(dict.fromkeys(taken)) == LOCKS


@pytest.mark.parametrize(
    ("kind", "queries"),
    [
        (LogMessage, ["record_logs"]),
        (StoreDeadLetter, ["record_dead_letters"]),
        (StartedMessage, ["lock_runs"]),
        (ResultMessage, ["lock_runs"]),
        (WorkerLostMessage, ["delete_worker", "find_chained_runs"]),
        (CancelRun, ["find_runs"]),
        (StartRun, ["find_dags", "allocate_run_ids"]),
    ],
)
def test_a_kind_enters_its_own_phases_alone(kind, queries):
    _, store = process(ITEMS[kind])
    assert store.queries == queries


def test_an_event_of_a_known_dataset_costs_two_statements():
    processor, store = BatchProcessor(), EmptyStore()
    for _ in range(2):
        item = InboxItem(RecordEvents((NewEvent("x://a"),), (None,)), done=print, failed=print)
        store.queries.clear()
        processor.committed(anyio.run(processor.process, [item], store))
    assert store.queries == ["lock_dag_states", "write_batch"]
    (recorded,) = item.answer
    assert not recorded.duplicate


def test_events_and_commands_of_one_batch_share_the_reserved_run_ids(monkeypatch):
    """A command that starts a run between an event's lock and its decision takes no id of it."""
    monkeypatch.setattr(load, "_IDS_A_BLOCK", 1)
    state = {"paused": False, "active": 0, "queued": 0, "catch_up_from": None, "present": True}
    state |= {"source": "s", "missing": False, "backfills": 0, "apart": 0, "tag_limits": None}
    state |= {"canary": None}
    spec = encode(dag("d", task("t"), on="a"))
    _, store = process(
        RecordEvents((NewEvent("x://a"),) * 3, (None,) * 3),
        StartRun("d"),
        StartRun("d"),
        find_dags=[{"dag_id": "d", "id": 7, "version": 1}],
        lock_dag_states=[{"dag": 7, "version": 1, **state}],
        read_dag_versions=[{"id": 1, "dag": 7, "spec": spec}],
    )
    assert store.queries.count("allocate_run_ids") == 5
    assert "write_batch" in store.queries


def test_the_first_of_two_events_under_one_key_counts():
    post = RecordEvents((NewEvent("x://a"),), ("key",))
    (first, second), _ = process(post, post)
    assert not first.answer[0].duplicate
    assert second.answer[0].duplicate
    assert first.answer[0].event_id == second.answer[0].event_id


def test_an_event_that_a_broken_transaction_recorded_is_not_recorded_again():
    item = InboxItem(RecordEvents((NewEvent("x://a"),), (None,)), done=print, failed=print)
    event_id = uuid4()
    item.tried, item.ids = True, [str(event_id)]
    store = EmptyStore(find_recorded_events=[{"event_id": event_id}])
    anyio.run(BatchProcessor().process, [item], store)
    assert item.answer[0].event_id == item.ids[0]
    assert "lock_dag_states" not in store.queries


@pytest.mark.parametrize(
    ("event", "key", "reason"),
    [
        (NewEvent("x://a", {"pad": "x" * MAX_EVENT_BYTES}), None, "is larger than"),
        (NewEvent("x://a"), "k" * (MAX_KEY_CHARACTERS + 1), "characters and no NUL"),
        (NewEvent("x://a"), "nul\x00", "characters and no NUL"),
    ],
)
def test_a_request_with_a_bad_event_claims_no_key(event, key, reason):
    request = RecordEvents((NewEvent("x://a"), event), ("good", key))
    (item,), store = process(request)
    assert reason in str(item.error)
    assert store.queries == []


def test_a_bad_event_from_the_bus_becomes_a_dead_letter():
    item = InboxItem(
        RecordEvents((NewEvent("x://a"),), ("nul\x00",)),
        done=print,
        failed=print,
        subject="psf.in.event.0",
        payload=b"it",
    )
    store = EmptyStore()
    anyio.run(BatchProcessor().process, [item], store)
    assert store.queries == ["record_dead_letters"]


def test_of_two_requests_for_one_dead_letter_the_second_is_tried_again():
    letter = {
        "kind": "message",
        "subject": "s",
        "payload": b"p",
        "dag": None,
        "resent_at": None,
        "discarded_at": None,
    }
    items, store = process(RedriveDeadLetter(1), RedriveDeadLetter(1), lock_dead_letter=[letter])
    assert [item.postponed for item in items] == [False, True]
    assert store.queries.count("mark_dead_letter_resent") == 1


def test_events_of_a_dead_letter_are_recorded_before_it_is_marked():
    letter = {
        "kind": "hook",
        "subject": "s",
        "payload": b"{}",
        "dag": None,
        "resent_at": None,
        "discarded_at": None,
    }
    events = RecordEvents((NewEvent("x://a"),), ("key",))
    (item,), store = process(RedriveDeadLetter(1, events=events), lock_dead_letter=[letter])
    assert [recorded.duplicate for recorded in item.answer] == [False]
    assert store.queries.index("claim_idempotency_keys") < store.queries.index(
        "mark_dead_letter_resent"
    )
    refused = RecordEvents((NewEvent("x://a"),), ("nul\x00",))
    (item,), store = process(RedriveDeadLetter(1, events=refused), lock_dead_letter=[letter])
    assert item.error is not None
    assert "mark_dead_letter_resent" not in store.queries
