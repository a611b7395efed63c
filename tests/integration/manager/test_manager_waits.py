"""Deferred tasks: what they wait for happens, fails, lasts too long or is cancelled."""

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import anyio
import msgspec
import pytest

from pubsubflow.manager.sweeper import Sweeper, SweeperSettings
from pubsubflow.model.cloud_events import read_event
from pubsubflow.model.spec import DatasetSpec, RetryPolicy
from pubsubflow.model.wire.commands import CancelRun, CheckEventWaits, RecordEvents, StartRun
from pubsubflow.model.wire.messages import (
    EventInfo,
    FiredMessage,
    JournalEntry,
    NewEvent,
    Outcome,
    TaskError,
    decode_triggers_changed,
    encode,
)
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.model.wire.waits import START, Wait, WaitSet, decode_completions
from pubsubflow.store.catalog import Catalog
from pubsubflow.store.read.timers import Timers
from pubsubflow.timers import TimerService
from support.specs import dag, loaded, task, uri

pytestmark = pytest.mark.anyio

SOON = 0.05


def trigger(name: str = "test.Bell", **fields) -> Wait:
    return Wait("trigger", name, b"\x80", **fields)


def event(name: str, **fields) -> Wait:
    return Wait("event", uri(name), **fields)


def in_seconds(seconds: float) -> Wait:
    return Wait("time", "sleep", delay_seconds=seconds)


def waiting(*waits: Wait, key: str = "0", **fields) -> bytes:
    return encode(WaitSet(key, "it", waits, **fields))


async def start(harness, *tasks, **options) -> str:
    await harness.load(dag("d", *tasks, **options))
    return await harness.call(StartRun("d"))


async def defer(harness, *waits: Wait, task_id: str | None = None, **fields):
    order = await harness.order(task_id)
    order.delivery.ack()
    await harness.report(order.result(Outcome.DEFERRED, wait_set=waiting(*waits, **fields)))
    return order


@asynccontextmanager
async def clock(harness):
    stopping = anyio.Event()
    async with anyio.create_task_group() as group:
        service = TimerService(
            timers=Timers(harness.database), bus=harness.bus, commands=harness.managers[0]
        )
        await group.start(service.run, stopping)
        yield
        stopping.set()


async def fire(harness, payload: object = None, *, slot: int = 0, epoch: int = 0, **fields) -> None:
    [row] = await harness.rows(
        "SELECT id, run, node, map_index, delivery, wait_index AS slot"
        " FROM trigger WHERE wait_index = $1",
        slot,
    )
    number, run, *place = row
    message = FiredMessage(number, epoch, 0, run, *place, payload=encode(payload), **fields)
    await harness.publish(Subjects.inbound(Subjects.FIRED, run), message)


def payloads(step: JournalEntry) -> list:
    return [msgspec.msgpack.decode(each.payload) for each in decode_completions(step.value)]


def seen_events(order) -> list[str]:
    """Return the `n` of every event in an order's record, in order."""
    return [
        msgspec.msgpack.decode(each.payload, type=EventInfo).extra["n"]
        for step in order.message.journal
        for each in decode_completions(step.value)
    ]


async def test_a_task_that_waits_holds_nothing_and_goes_on_with_what_was_seen(harness):
    await start(harness, task("a"))
    await defer(harness, trigger())
    assert await harness.rows("SELECT state, worker FROM task_live") == [("deferred", None)]
    assert await harness.rows("SELECT kind, name, owner FROM trigger") == [
        ("trigger", "test.Bell", None)
    ]
    await fire(harness, {"n": 1}, id="x")
    order = await harness.order("a")
    assert (order.message.attempt, order.message.delivery) == (1, 2)
    [step] = order.message.journal
    assert (step.key, step.label, step.kind, payloads(step)) == ("0", "it", "wait", [{"n": 1}])
    assert await harness.rows("SELECT * FROM trigger") == []
    assert await harness.rows("SELECT since < recorded_at FROM journal_entry") == [(True,)]
    order.delivery.ack()
    await harness.report(order.result(peak_memory=1 << 30))
    await harness.until_states("success")
    # It was queued for the first time before it started for the first time.
    [(queued, started, peak)] = await harness.rows(
        "SELECT queued_at, started_at, peak_memory FROM task"
    )
    assert queued <= started
    assert peak == 1 << 30


async def test_waits_follow_one_another_and_the_record_grows(harness):
    await start(harness, task("a"))
    for number in range(3):
        order = await defer(harness, trigger(), key=str(number))
        assert [step.key for step in order.message.journal] == [str(n) for n in range(number)]
        await fire(harness, number)
    order = await harness.finish("a")
    assert [payloads(step) for step in order.message.journal] == [[0], [1], [2]]


async def test_a_trigger_that_fires_twice_or_too_late_changes_nothing(harness):
    await start(harness, task("a"))
    await defer(harness, trigger())
    [row] = await harness.rows(
        "SELECT id, run, node, map_index, delivery, wait_index AS slot FROM trigger"
    )
    number, run, *place = row
    message = FiredMessage(number, 0, 0, run, *place)
    for _ in range(3):
        await harness.publish(Subjects.inbound(Subjects.FIRED, run), message)
    await defer(harness, trigger(), key="1")
    await harness.publish(Subjects.inbound(Subjects.FIRED, run), message)
    assert await harness.rows("SELECT state, delivery FROM task_live") == [("deferred", 2)]
    assert len(harness.received) == 2


async def test_a_deferral_that_is_reported_twice_is_one(harness):
    await start(harness, task("a"))
    order = await harness.order("a")
    result = order.result(Outcome.DEFERRED, wait_set=waiting(trigger()))
    await harness.report(result)
    await harness.report(result)
    assert await harness.value("SELECT count(*) FROM trigger") == 1


async def test_the_first_of_several_is_enough_and_the_others_stop(harness):
    await start(harness, task("a"))
    heard = []
    async with await harness.bus.subscribe(Subjects.TRIGGERS_CHANGED, heard.append):
        await defer(harness, trigger(), trigger(), in_seconds(3600))
        await harness.rows("UPDATE trigger SET owner = 't' WHERE wait_index = 0 RETURNING 1")
        [(first,)] = await harness.rows("SELECT id FROM trigger WHERE wait_index = 0")
        await fire(harness, "second", slot=1)
        order = await harness.order("a")
        await harness.bus.flush()
    [happened] = decode_completions(order.message.journal[0].value)
    assert (happened.slot, msgspec.msgpack.decode(happened.payload)) == (1, "second")
    orders = [decode_triggers_changed(message.data) for message in heard]
    assert [(each.has_new, each.ended) for each in orders] == [(True, ()), (False, (first,))]
    assert await harness.rows("SELECT * FROM trigger") == []
    assert await harness.rows("SELECT * FROM timer") == []


async def test_all_of_several_are_waited_for_in_any_order(harness):
    await start(harness, task("a"))
    async with clock(harness):
        await defer(harness, trigger(), in_seconds(SOON), trigger(), required=3)
        await fire(harness, "last", slot=2)
        await fire(harness, "first", slot=0)
        order = await harness.order("a")
    assert payloads(order.message.journal[0]) == ["first", None, "last"]


async def test_time_is_waited_for_without_a_trigger(harness):
    await start(harness, task("a"))
    heard = []
    async with clock(harness), await harness.bus.subscribe(Subjects.TRIGGERS_CHANGED, heard.append):
        await defer(harness, in_seconds(SOON))
        order = await harness.finish("a")
    assert payloads(order.message.journal[0]) == [None]
    assert heard == []


async def test_a_wait_that_lasts_too_long_goes_on_with_a_failure(harness):
    await start(harness, task("a"))
    async with clock(harness):
        await defer(harness, trigger(), timeout_seconds=SOON)
        order = await harness.finish("a")
    assert order.message.journal[0].error == TaskError("WaitTimeout", "it did not happen in time")


async def test_a_trigger_that_fails_under_the_present_lease_goes_on_with_its_error(harness):
    await start(harness, task("a"))
    await defer(harness, trigger())
    await harness.rows("UPDATE trigger SET epoch = 2 RETURNING 1")
    error = TaskError("OSError", "no", "where")
    await fire(harness, error=error, epoch=1)
    assert await harness.value("SELECT state FROM task_live") == "deferred"
    await fire(harness, error=error, epoch=2)
    assert (await harness.finish("a")).message.journal[0].error == error


async def test_what_failed_last_is_forgotten_by_the_next_attempt(harness):
    await start(harness, task("a", retry=RetryPolicy(1)))
    await defer(harness, trigger())
    await fire(harness, "kept")
    await defer(harness, trigger(), key="1")
    await fire(harness, error=TaskError("OSError", "no"))
    failed = await harness.finish("a", Outcome.FAILED, error=TaskError("TriggerError", "no"))
    assert [step.error is None for step in failed.message.journal] == [True, False]
    again = await harness.finish("a")
    assert (again.message.attempt, [step.key for step in again.message.journal]) == (2, ["0"])


async def test_a_large_journal_is_requested(harness):
    await start(harness, task("a"))
    await defer(harness, trigger())
    await fire(harness, "x" * 200_000)
    assert (await harness.order("a")).message.journal is None


@pytest.mark.parametrize("retries", [0, 1])
async def test_a_timeout_reaches_a_waiting_task(harness, retries):
    await start(harness, task("a", timeout_seconds=0.2, retry=RetryPolicy(retries)))
    async with clock(harness):
        await defer(harness, trigger())
        if retries:
            again = await harness.finish("a")
            assert (again.message.attempt, again.message.journal) == (2, ())
        await harness.until_states("success" if retries else "failed")
    assert await harness.rows("SELECT * FROM trigger") == []
    if not retries:
        [(error,)] = await harness.rows("SELECT error FROM task")
        assert error["message"] == "timed out after 0.2 s, while it waited for it"


async def test_a_task_that_has_waited_gets_what_is_left_of_its_timeout(harness):
    await start(harness, task("a", timeout_seconds=100))
    await defer(harness, trigger())
    await harness.rows("UPDATE task_live SET started_at = now() - interval '60 s' RETURNING 1")
    await fire(harness)
    [left] = (await harness.order("a")).message.timeouts
    assert 0 < left < 41


async def test_a_user_s_cancellation_reaches_a_waiting_task_and_its_trigger(harness):
    run_id = await start(harness, task("a"))
    heard = []
    async with await harness.bus.subscribe(Subjects.TRIGGERS_CHANGED, heard.append):
        await defer(harness, trigger(), in_seconds(3600), event("x"))
        await harness.call(CancelRun(run_id))
        await harness.bus.flush()
    assert await harness.states() == ["cancelled"]
    assert await harness.rows("SELECT kind, cancelled FROM trigger") == [("trigger", True)]
    assert await harness.rows("SELECT 1 FROM timer UNION ALL SELECT 2 FROM event_wait") == []
    assert decode_triggers_changed(heard[-1].data).has_new


async def test_a_run_that_ends_otherwise_stops_its_waits_without_a_cancellation(harness):
    async with clock(harness):
        await start(harness, task("a"), timeout_seconds=0.2)
        await defer(harness, trigger())
        await harness.until_states("failed")
    assert await harness.rows("SELECT * FROM trigger") == []


async def test_a_link_of_a_chain_may_wait(harness):
    await start(harness, task("a"), task("b", "a"), task("c", "b"))
    order = await harness.order("a")
    order.delivery.ack()
    await harness.report(order.result(then=1, value=1))
    deferred = order.result(Outcome.DEFERRED, chain=1, wait_set=waiting(trigger()))
    await harness.report(deferred)
    assert await harness.rows("SELECT node, state, chained FROM task_live") == [
        (1, "deferred", False)
    ]
    await fire(harness)
    resumed = await harness.order("b")
    assert (resumed.message.chain, len(resumed.message.journal)) == ((2,), 1)


async def test_an_event_is_waited_for(harness):
    await start(harness, task("a"))
    await defer(harness, event("x"))
    await harness.call(RecordEvents((NewEvent(uri("y"), {"n": 0}),), (None,)))
    await harness.call(RecordEvents((NewEvent(uri("x"), {"n": 1}),), (None,)))
    order = await harness.order("a")
    assert seen_events(order) == [1]
    [happened] = decode_completions(order.message.journal[0].value)
    assert happened.number == await harness.value("SELECT max(id) FROM event")


async def test_an_event_s_filter_and_pattern_count(harness):
    await start(harness, task("a"))
    await defer(harness, Wait("event", "x://lake/*", pattern=True, where="event.extra.n > 1"))
    for name, number in (("x://lake/a", 1), ("x://other/a", 2), ("x://lake/b", 3)):
        await harness.call(RecordEvents((NewEvent(name, {"n": number}),), (None,)))
    assert seen_events(await harness.order("a")) == [3]


async def test_an_event_from_before_counts_within_the_lookback(harness):
    for number in range(3):
        await harness.call(RecordEvents((NewEvent(uri("x"), {"n": number}),), (None,)))
    [(since,)] = await harness.rows("SELECT recorded_at FROM event WHERE extra ->> 'n' = '1'")
    await start(harness, task("a"))
    await defer(harness, event("x", since=since.timestamp()))
    assert seen_events(await harness.order("a")) == [1]


async def test_a_loop_of_waits_sees_every_event_once_and_in_order(harness):
    before = datetime.now(UTC) - timedelta(days=1)
    await start(harness, task("a"))
    for number in range(3):
        await harness.call(RecordEvents((NewEvent(uri("x"), {"n": number}),), (None,)))
    after = 0
    for number in range(6):
        if number == 3:
            await harness.call(RecordEvents((NewEvent(uri("x"), {"n": 3}),) * 1, (None,)))
        order = await defer(
            harness, event("x", since=before.timestamp(), after=after), key=str(number)
        )
        assert seen_events(order) == list(range(number))
        if number >= 4:
            await harness.call(RecordEvents((NewEvent(uri("x"), {"n": number}),), (None,)))

        async def looked():
            return await harness.value("SELECT max(id) FROM journal_entry")

        await harness.until(looked)
        after = await harness.until(lambda count=number + 1: _last_number(harness, count))


async def _last_number(harness, count: int):
    rows = await harness.rows("SELECT value FROM journal_entry ORDER BY id")
    return len(rows) == count and decode_completions(rows[-1][0])[0].number


@pytest.mark.parametrize("tasks", [20])
async def test_no_event_slips_between_a_wait_s_beginning_and_its_check(pair, tasks):
    """Two managers process waits and events at once; every wait gets one of its events."""
    names = [f"t{number}" for number in range(tasks)]
    await start(pair, *(task(name) for name in names))
    orders = [await pair.order(name) for name in names]
    async with anyio.create_task_group() as group:
        for number, order in enumerate(orders):
            order.delivery.ack()
            what = waiting(event(f"e{number}", since=0.0))
            pair.answer(order, [order.result(Outcome.DEFERRED, wait_set=what)])
            call = RecordEvents((NewEvent(uri(f"e{number}"), {"n": number}),), (None,))
            group.start_soon(pair.managers[number % 2].execute, call)
    for number, name in enumerate(names):
        assert seen_events(await pair.order(name)) == [number]


async def test_the_sweeper_checks_waits_whose_manager_died(harness):
    await start(harness, task("a"))
    await defer(harness, event("x"))
    await harness.call(RecordEvents((NewEvent(uri("y"), {}),), (None,)))
    await harness.rows(
        "UPDATE event_wait SET due = true, since = since - interval '1 day' RETURNING 1"
    )
    await harness.rows(
        "INSERT INTO event (id, event_id, dataset, extra, time, source)"
        " SELECT nextval('event_id'), gen_random_uuid(), id, '{\"n\": 7}', now(), 'api'"
        " FROM dataset WHERE uri = 'x://x' RETURNING 1"
    )
    settings = SweeperSettings(undelivered_seconds=0)
    await Sweeper(
        database=harness.database, bus=harness.bus, commands=harness.managers[0], settings=settings
    ).sweep()
    assert seen_events(await harness.order("a")) == [7]


async def test_a_check_and_the_event_in_one_transaction_lose_nothing(harness):
    await start(harness, task("a"))
    await defer(harness, event("x"))
    await harness.rows("UPDATE event_wait SET due = true RETURNING 1")
    place = tuple((await harness.rows("SELECT run, node, map_index FROM task_live"))[0])
    manager = harness.managers[0]
    async with anyio.create_task_group() as group:
        group.start_soon(manager.execute, CheckEventWaits((place,)))
        group.start_soon(manager.execute, RecordEvents((NewEvent(uri("x"), {"n": 1}),), (None,)))
    assert seen_events(await harness.order("a")) == [1]


async def test_a_check_of_no_task_is_harmless(harness):
    await start(harness, task("a"))
    await defer(harness, trigger())
    assert await harness.call(CheckEventWaits(((1, 0, -1), (99, 0, -1)))) is None


def sensor(*waits: Wait, **fields) -> WaitSet:
    return WaitSet(START, "it", waits, **fields)


async def test_a_sensor_of_which_nothing_runs_is_finished_by_its_trigger(harness):
    spec = task("a", kind="empty", emits=["y"], start_wait=sensor(trigger()))
    await start(harness, spec, task("b", inputs=["a"]))
    assert await harness.value("SELECT state FROM task_live") == "deferred"
    await fire(harness, {"path": "p"})
    order = await harness.finish("b")
    assert order.inputs == {0: {"path": "p"}}
    assert [order.task_id for order in harness.received] == ["b"]
    assert await harness.rows("SELECT uri FROM event JOIN dataset ON dataset.id = dataset") == [
        ("x://y",)
    ]
    await harness.until_states("success")


async def test_a_sensor_with_a_body_runs_after_its_trigger(harness):
    await start(harness, task("a", start_wait=sensor(trigger())))
    await fire(harness, 5)
    order = await harness.finish("a")
    assert [(step.key, payloads(step)) for step in order.message.journal] == [(START, [5])]


async def test_a_sensor_counts_its_times_from_its_start(harness):
    async with clock(harness):
        await start(harness, task("a", kind="empty", start_wait=sensor(in_seconds(SOON))))
        await harness.until_states("success")


@pytest.mark.parametrize("delay", [0.0, SOON])
async def test_a_sensor_that_fails_waits_anew_and_one_whose_body_fails_does_not(harness, delay):
    policy = RetryPolicy(2, delay_seconds=delay)
    async with clock(harness):
        await start(harness, task("a", retry=policy, start_wait=sensor(trigger())))
        await fire(harness, error=TaskError("OSError", "no"))
        await harness.until(lambda: harness.rows("SELECT 1 FROM trigger WHERE delivery = 2"))
        await fire(harness, "seen")
        failed = await harness.finish("a", Outcome.FAILED, error=TaskError("E", "no"))
        again = await harness.finish("a")
    assert [failed.message.attempt, again.message.attempt] == [2, 3]
    assert payloads(again.message.journal[0]) == ["seen"]
    await harness.until_states("success")


async def test_a_sensor_that_times_out_fails_its_run(harness):
    async with clock(harness):
        await start(
            harness, task("a", kind="empty", start_wait=sensor(trigger(), timeout_seconds=SOON))
        )
        await harness.until_states("failed")


async def test_a_mapped_sensor_waits_once_for_each(harness):
    await start(harness, task("a", kind="empty", over=[3], start_wait=sensor(event("x"))))
    await harness.call(RecordEvents((NewEvent(uri("x"), {"n": 1}),), (None,)))
    await harness.until_states("success")
    assert await harness.tasks() == {"0.0": "success", "0.1": "success", "0.2": "success"}


async def watch(harness, *names: str, file: str = "d.py") -> None:
    spec = dag("d", task("a"), on="x")
    datasets = tuple(DatasetSpec(uri("x"), watch_name=name, watch_data=b"\x80") for name in names)
    given = msgspec.structs.replace(loaded(spec, file=file), datasets=datasets[:1])
    await Catalog(harness.database).save([given])


async def saw(harness, sequence: int, *, epoch: int = 1, payload=None, **fields) -> None:
    [(number,)] = await harness.rows("SELECT id FROM trigger WHERE kind = 'watch'")
    message = FiredMessage(
        number, epoch, sequence, -1, -1, -1, 0, 0, encode(payload), reply="done", **fields
    )
    await harness.publish(Subjects.inbound(Subjects.FIRED, number), message)


async def test_what_is_seen_of_a_watched_dataset_is_an_event_once(harness):
    await watch(harness, "test.Bell")
    await harness.rows("UPDATE trigger SET epoch = 1, owner = 't' RETURNING 1")
    published = []
    async with await harness.bus.subscribe("done", published.append):
        await saw(harness, 1, payload={"n": 1}, position=encode(10))
        await saw(harness, 1, payload={"n": 1}, position=encode(10))
        await saw(harness, 2, payload={"n": 2}, epoch=0, position=encode(99))
        await saw(harness, 2, payload=2, id="same", partition="p", position=encode(20))
        await saw(harness, 3, payload=2, id="same", partition="p", position=encode(30))
        await harness.bus.flush()
    # All but the one whose sender has lost the lease: its source must not be told.
    assert len(published) == 4
    rows = await harness.rows("SELECT extra, partition, source FROM event ORDER BY id")
    assert rows == [({"n": 1}, None, "watch"), ({"value": 2}, "p", "watch")]
    [row] = await harness.rows("SELECT sequence, position FROM trigger")
    assert row == (3, encode(30))
    await harness.finish("a")
    await harness.finish("a")
    await saw(harness, 4, payload={"n": 4, "x": "y" * 300_000}, position=encode(40))
    [(kind, subject, letter, at)] = await harness.rows(
        "SELECT l.kind, l.subject, l.payload, position FROM dead_letter AS l, trigger"
    )
    assert (kind, subject[:12], at) == ("cloudevent", "psf.in.event", encode(40))
    event, _ = read_event(msgspec.json.decode(letter))
    assert (event.dataset, event.extra["n"]) == (uri("x"), 4)


async def test_a_watch_lasts_as_long_as_a_file_declares_it(harness):
    await watch(harness, "test.Bell")
    await watch(harness, "test.Bell", file="e.py")
    await harness.rows("UPDATE trigger SET sequence = 5 RETURNING 1")
    await watch(harness)
    assert await harness.rows("SELECT name, sequence FROM trigger") == [("test.Bell", 5)]
    await watch(harness, "test.Other", file="e.py")
    assert await harness.rows("SELECT name, sequence FROM trigger") == [("test.Other", 0)]
    await Catalog(harness.database).remove(["e.py"])
    assert await harness.rows("SELECT * FROM trigger") == []
