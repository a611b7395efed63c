"""Deferred tasks: what they wait for happens, fails, lasts too long or is cancelled."""

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import anyio
import msgspec
import pytest
from dag_specs import dag, loaded, task, uri

from pubsubflow.manager.sweeper import Sweeper, SweeperSettings
from pubsubflow.model.runs.waits import START, Wait, Waiting, decode_happened
from pubsubflow.model.spec import DatasetSpec, RetryPolicy
from pubsubflow.model.wire.commands import CancelRun, LookForEvents, PostEvents, StartRun
from pubsubflow.model.wire.messages import (
    EventInfo,
    FiredMessage,
    NewEvent,
    Outcome,
    Step,
    TaskError,
    decode_triggers_order,
    encode,
)
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.catalog import Catalog
from pubsubflow.store.timers import Timers
from pubsubflow.timers import Clock

pytestmark = pytest.mark.anyio

SOON = 0.05


def trigger(name: str = "test.Bell", **fields) -> Wait:
    return Wait("trigger", name, b"\x80", **fields)


def event(name: str, **fields) -> Wait:
    return Wait("event", uri(name), **fields)


def in_seconds(seconds: float) -> Wait:
    return Wait("time", "sleep", delay_seconds=seconds)


def waiting(*waits: Wait, key: str = "0", **fields) -> bytes:
    return encode(Waiting(key, "it", waits, **fields))


async def start(rig, *tasks, **options) -> str:
    await rig.load(dag("d", *tasks, **options))
    return await rig.call(StartRun("d"))


async def defer(rig, *waits: Wait, task_id: str | None = None, **fields):
    order = await rig.order(task_id)
    order.delivery.ack()
    await rig.report(order.result(Outcome.DEFERRED, waiting=waiting(*waits, **fields)))
    return order


@asynccontextmanager
async def clock(rig):
    stopping = anyio.Event()
    async with anyio.create_task_group() as group:
        service = Clock(timers=Timers(rig.database), bus=rig.bus, calls=rig.managers[0])
        await group.start(service.run, stopping)
        yield
        stopping.set()


async def fire(rig, payload: object = None, *, slot: int = 0, epoch: int = 0, **fields) -> None:
    [row] = await rig.rows(
        "SELECT id, run, node, map_index, delivery, slot FROM trigger WHERE slot = $1", slot
    )
    number, run, *place = row
    message = FiredMessage(number, epoch, 0, run, *place, payload=encode(payload), **fields)
    await rig.tell(Subjects.inbound(Subjects.FIRED, run), message)


def payloads(step: Step) -> list:
    return [msgspec.msgpack.decode(each.payload) for each in decode_happened(step.value)]


def seen_events(order) -> list[str]:
    """Return the `n` of every event in an order's record, in order."""
    return [
        msgspec.msgpack.decode(each.payload, type=EventInfo).extra["n"]
        for step in order.message.steps
        for each in decode_happened(step.value)
    ]


async def test_a_task_that_waits_holds_nothing_and_goes_on_with_what_was_seen(rig):
    await start(rig, task("a"))
    await defer(rig, trigger())
    assert await rig.rows("SELECT state, worker FROM task_live") == [("deferred", None)]
    assert await rig.rows("SELECT kind, name, owner FROM trigger") == [
        ("trigger", "test.Bell", None)
    ]
    await fire(rig, {"n": 1}, id="x")
    order = await rig.order("a")
    assert (order.message.attempt, order.message.delivery) == (1, 2)
    [step] = order.message.steps
    assert (step.key, step.label, step.kind, payloads(step)) == ("0", "it", "wait", [{"n": 1}])
    assert await rig.rows("SELECT * FROM trigger") == []
    order.delivery.ack()
    await rig.report(order.result())
    await rig.until_states("success")


async def test_waits_follow_one_another_and_the_record_grows(rig):
    await start(rig, task("a"))
    for number in range(3):
        order = await defer(rig, trigger(), key=str(number))
        assert [step.key for step in order.message.steps] == [str(n) for n in range(number)]
        await fire(rig, number)
    order = await rig.finish("a")
    assert [payloads(step) for step in order.message.steps] == [[0], [1], [2]]


async def test_a_trigger_that_fires_twice_or_too_late_changes_nothing(rig):
    await start(rig, task("a"))
    await defer(rig, trigger())
    [row] = await rig.rows("SELECT id, run, node, map_index, delivery, slot FROM trigger")
    number, run, *place = row
    message = FiredMessage(number, 0, 0, run, *place)
    for _ in range(3):
        await rig.tell(Subjects.inbound(Subjects.FIRED, run), message)
    await defer(rig, trigger(), key="1")
    await rig.tell(Subjects.inbound(Subjects.FIRED, run), message)
    assert await rig.rows("SELECT state, delivery FROM task_live") == [("deferred", 2)]
    assert len(rig.seen) == 2


async def test_a_deferral_that_is_told_twice_is_one(rig):
    await start(rig, task("a"))
    order = await rig.order("a")
    result = order.result(Outcome.DEFERRED, waiting=waiting(trigger()))
    await rig.report(result)
    await rig.report(result)
    assert await rig.value("SELECT count(*) FROM trigger") == 1


async def test_the_first_of_several_is_enough_and_the_others_stop(rig):
    await start(rig, task("a"))
    heard = []
    async with await rig.bus.subscribe(Subjects.TRIGGERS, heard.append):
        await defer(rig, trigger(), trigger(), in_seconds(3600))
        await rig.rows("UPDATE trigger SET owner = 't' WHERE slot = 0 RETURNING 1")
        [(first,)] = await rig.rows("SELECT id FROM trigger WHERE slot = 0")
        await fire(rig, "second", slot=1)
        order = await rig.order("a")
        await rig.bus.flush()
    [happened] = decode_happened(order.message.steps[0].value)
    assert (happened.slot, msgspec.msgpack.decode(happened.payload)) == (1, "second")
    orders = [decode_triggers_order(message.data) for message in heard]
    assert [(each.fresh, each.gone) for each in orders] == [(True, ()), (False, (first,))]
    assert await rig.rows("SELECT * FROM trigger") == []
    assert await rig.rows("SELECT * FROM timer") == []


async def test_all_of_several_are_waited_for_in_any_order(rig):
    await start(rig, task("a"))
    async with clock(rig):
        await defer(rig, trigger(), in_seconds(SOON), trigger(), need=3)
        await fire(rig, "last", slot=2)
        await fire(rig, "first", slot=0)
        order = await rig.order("a")
    assert payloads(order.message.steps[0]) == ["first", None, "last"]


async def test_time_is_waited_for_without_a_trigger(rig):
    await start(rig, task("a"))
    heard = []
    async with clock(rig), await rig.bus.subscribe(Subjects.TRIGGERS, heard.append):
        await defer(rig, in_seconds(SOON))
        order = await rig.finish("a")
    assert payloads(order.message.steps[0]) == [None]
    assert heard == []


async def test_a_wait_that_lasts_too_long_goes_on_with_a_failure(rig):
    await start(rig, task("a"))
    async with clock(rig):
        await defer(rig, trigger(), timeout_seconds=SOON)
        order = await rig.finish("a")
    assert order.message.steps[0].error == TaskError("WaitTimeout", "it did not happen in time")


async def test_a_trigger_that_fails_under_the_present_lease_goes_on_with_its_error(rig):
    await start(rig, task("a"))
    await defer(rig, trigger())
    await rig.rows("UPDATE trigger SET epoch = 2 RETURNING 1")
    error = TaskError("OSError", "no", "where")
    await fire(rig, error=error, epoch=1)
    assert await rig.value("SELECT state FROM task_live") == "deferred"
    await fire(rig, error=error, epoch=2)
    assert (await rig.finish("a")).message.steps[0].error == error


async def test_what_failed_last_is_forgotten_by_the_next_attempt(rig):
    await start(rig, task("a", retry=RetryPolicy(1)))
    await defer(rig, trigger())
    await fire(rig, "kept")
    await defer(rig, trigger(), key="1")
    await fire(rig, error=TaskError("OSError", "no"))
    failed = await rig.finish("a", Outcome.FAILED, error=TaskError("TriggerError", "no"))
    assert [step.error is None for step in failed.message.steps] == [True, False]
    again = await rig.finish("a")
    assert (again.message.attempt, [step.key for step in again.message.steps]) == (2, ["0"])


async def test_a_large_record_is_asked_for(rig):
    await start(rig, task("a"))
    await defer(rig, trigger())
    await fire(rig, "x" * 200_000)
    assert (await rig.order("a")).message.steps is None


@pytest.mark.parametrize("retries", [0, 1])
async def test_a_timeout_reaches_a_waiting_task(rig, retries):
    await start(rig, task("a", timeout_seconds=0.2, retry=RetryPolicy(retries)))
    async with clock(rig):
        await defer(rig, trigger())
        if retries:
            again = await rig.finish("a")
            assert (again.message.attempt, again.message.steps) == (2, ())
        await rig.until_states("success" if retries else "failed")
    assert await rig.rows("SELECT * FROM trigger") == []
    if not retries:
        [(error,)] = await rig.rows("SELECT error FROM task")
        assert error["message"] == "timed out after 0.2 s, while it waited for it"


async def test_a_task_that_has_waited_gets_what_is_left_of_its_timeout(rig):
    await start(rig, task("a", timeout_seconds=100))
    await defer(rig, trigger())
    await rig.rows("UPDATE task_live SET started_at = now() - interval '60 s' RETURNING 1")
    await fire(rig)
    [left] = (await rig.order("a")).message.timeouts
    assert 0 < left < 41


async def test_a_user_s_cancellation_reaches_a_waiting_task_and_its_trigger(rig):
    run_id = await start(rig, task("a"))
    heard = []
    async with await rig.bus.subscribe(Subjects.TRIGGERS, heard.append):
        await defer(rig, trigger(), in_seconds(3600), event("x"))
        await rig.call(CancelRun(run_id))
        await rig.bus.flush()
    assert await rig.states() == ["cancelled"]
    assert await rig.rows("SELECT kind, cancelled FROM trigger") == [("trigger", True)]
    assert await rig.rows("SELECT 1 FROM timer UNION ALL SELECT 2 FROM event_wait") == []
    assert decode_triggers_order(heard[-1].data).fresh


async def test_a_run_that_ends_otherwise_stops_its_waits_without_a_cancellation(rig):
    async with clock(rig):
        await start(rig, task("a"), timeout_seconds=0.2)
        await defer(rig, trigger())
        await rig.until_states("failed")
    assert await rig.rows("SELECT * FROM trigger") == []


async def test_a_link_of_a_chain_may_wait(rig):
    await start(rig, task("a"), task("b", "a"), task("c", "b"))
    order = await rig.order("a")
    order.delivery.ack()
    await rig.report(order.result(then=1, value=1))
    deferred = order.result(Outcome.DEFERRED, chain=1, waiting=waiting(trigger()))
    await rig.report(deferred)
    assert await rig.rows("SELECT node, state, chained FROM task_live") == [(1, "deferred", False)]
    await fire(rig)
    resumed = await rig.order("b")
    assert (resumed.message.chain, len(resumed.message.steps)) == ((2,), 1)


async def test_an_event_is_waited_for(rig):
    await start(rig, task("a"))
    await defer(rig, event("x"))
    await rig.call(PostEvents((NewEvent(uri("y"), {"n": 0}),), (None,)))
    await rig.call(PostEvents((NewEvent(uri("x"), {"n": 1}),), (None,)))
    order = await rig.order("a")
    assert seen_events(order) == [1]
    [happened] = decode_happened(order.message.steps[0].value)
    assert happened.number == await rig.value("SELECT max(id) FROM event")


async def test_an_event_s_filter_and_pattern_count(rig):
    await start(rig, task("a"))
    await defer(rig, Wait("event", "x://lake/*", pattern=True, where="event.extra.n > 1"))
    for name, number in (("x://lake/a", 1), ("x://other/a", 2), ("x://lake/b", 3)):
        await rig.call(PostEvents((NewEvent(name, {"n": number}),), (None,)))
    assert seen_events(await rig.order("a")) == [3]


async def test_an_event_from_before_counts_as_far_as_is_looked_back(rig):
    for number in range(3):
        await rig.call(PostEvents((NewEvent(uri("x"), {"n": number}),), (None,)))
    [(since,)] = await rig.rows("SELECT recorded_at FROM event WHERE extra ->> 'n' = '1'")
    await start(rig, task("a"))
    await defer(rig, event("x", since=since.timestamp()))
    assert seen_events(await rig.order("a")) == [1]


async def test_a_loop_of_waits_sees_every_event_once_and_in_order(rig):
    before = datetime.now(UTC) - timedelta(days=1)
    await start(rig, task("a"))
    for number in range(3):
        await rig.call(PostEvents((NewEvent(uri("x"), {"n": number}),), (None,)))
    after = 0
    for number in range(6):
        if number == 3:
            await rig.call(PostEvents((NewEvent(uri("x"), {"n": 3}),) * 1, (None,)))
        order = await defer(rig, event("x", since=before.timestamp(), after=after), key=str(number))
        assert seen_events(order) == list(range(number))
        if number >= 4:
            await rig.call(PostEvents((NewEvent(uri("x"), {"n": number}),), (None,)))

        async def looked():
            return await rig.value("SELECT max(id) FROM step")

        await rig.until(looked)
        after = await rig.until(lambda count=number + 1: _last_number(rig, count))


async def _last_number(rig, count: int):
    rows = await rig.rows("SELECT value FROM step ORDER BY id")
    return len(rows) == count and decode_happened(rows[-1][0])[0].number


@pytest.mark.parametrize("tasks", [20])
async def test_no_event_slips_between_a_wait_s_beginning_and_its_look(pair, tasks):
    """Two managers fold waits and events at once; whoever waits gets one of its events."""
    names = [f"t{number}" for number in range(tasks)]
    await start(pair, *(task(name) for name in names))
    orders = [await pair.order(name) for name in names]
    async with anyio.create_task_group() as group:
        for number, order in enumerate(orders):
            order.delivery.ack()
            what = waiting(event(f"e{number}", since=0.0))
            pair.answer(order, [order.result(Outcome.DEFERRED, waiting=what)])
            call = PostEvents((NewEvent(uri(f"e{number}"), {"n": number}),), (None,))
            group.start_soon(pair.managers[number % 2].call, call)
    for number, name in enumerate(names):
        assert seen_events(await pair.order(name)) == [number]


async def test_the_sweeper_lets_tasks_look_whose_manager_died(rig):
    await start(rig, task("a"))
    await defer(rig, event("x"))
    await rig.call(PostEvents((NewEvent(uri("y"), {}),), (None,)))
    await rig.rows("UPDATE event_wait SET due = true, since = since - interval '1 day' RETURNING 1")
    await rig.rows(
        "INSERT INTO event (id, event_id, dataset, extra, time, source)"
        " SELECT nextval('event_id'), gen_random_uuid(), id, '{\"n\": 7}', now(), 'api'"
        " FROM dataset WHERE uri = 'x://x' RETURNING 1"
    )
    settings = SweeperSettings(undelivered_seconds=0)
    await Sweeper(
        database=rig.database, bus=rig.bus, calls=rig.managers[0], settings=settings
    ).sweep()
    assert seen_events(await rig.order("a")) == [7]


async def test_a_look_and_the_event_in_one_transaction_lose_nothing(rig):
    await start(rig, task("a"))
    await defer(rig, event("x"))
    await rig.rows("UPDATE event_wait SET due = true RETURNING 1")
    place = tuple((await rig.rows("SELECT run, node, map_index FROM task_live"))[0])
    manager = rig.managers[0]
    async with anyio.create_task_group() as group:
        group.start_soon(manager.call, LookForEvents((place,)))
        group.start_soon(manager.call, PostEvents((NewEvent(uri("x"), {"n": 1}),), (None,)))
    assert seen_events(await rig.order("a")) == [1]


async def test_to_look_for_nothing_is_harmless(rig):
    await start(rig, task("a"))
    await defer(rig, trigger())
    assert await rig.call(LookForEvents(((1, 0, -1), (99, 0, -1)))) is None


def sensor(*waits: Wait, **fields) -> Waiting:
    return Waiting(START, "it", waits, **fields)


async def test_a_sensor_of_which_nothing_runs_is_finished_by_its_trigger(rig):
    spec = task("a", kind="empty", emits=["y"], start=sensor(trigger()))
    await start(rig, spec, task("b", inputs=["a"]))
    assert await rig.value("SELECT state FROM task_live") == "deferred"
    await fire(rig, {"path": "p"})
    order = await rig.finish("b")
    assert order.inputs == {0: {"path": "p"}}
    assert [seen.task_id for seen in rig.seen] == ["b"]
    assert await rig.rows("SELECT uri FROM event JOIN dataset ON dataset.id = dataset") == [
        ("x://y",)
    ]
    await rig.until_states("success")


async def test_a_sensor_with_a_body_runs_after_its_trigger(rig):
    await start(rig, task("a", start=sensor(trigger())))
    await fire(rig, 5)
    order = await rig.finish("a")
    assert [(step.key, payloads(step)) for step in order.message.steps] == [(START, [5])]


async def test_a_sensor_counts_its_times_from_its_start(rig):
    async with clock(rig):
        await start(rig, task("a", kind="empty", start=sensor(in_seconds(SOON))))
        await rig.until_states("success")


@pytest.mark.parametrize("delay", [0.0, SOON])
async def test_a_sensor_that_fails_waits_anew_and_one_whose_body_fails_does_not(rig, delay):
    policy = RetryPolicy(2, delay_seconds=delay)
    async with clock(rig):
        await start(rig, task("a", retry=policy, start=sensor(trigger())))
        await fire(rig, error=TaskError("OSError", "no"))
        await rig.until(lambda: rig.rows("SELECT 1 FROM trigger WHERE delivery = 2"))
        await fire(rig, "seen")
        failed = await rig.finish("a", Outcome.FAILED, error=TaskError("E", "no"))
        again = await rig.finish("a")
    assert [failed.message.attempt, again.message.attempt] == [2, 3]
    assert payloads(again.message.steps[0]) == ["seen"]
    await rig.until_states("success")


async def test_a_sensor_that_times_out_fails_its_run(rig):
    async with clock(rig):
        await start(rig, task("a", kind="empty", start=sensor(trigger(), timeout_seconds=SOON)))
        await rig.until_states("failed")


async def test_a_mapped_sensor_waits_once_for_each(rig):
    await start(rig, task("a", kind="empty", over=[3], start=sensor(event("x"))))
    await rig.call(PostEvents((NewEvent(uri("x"), {"n": 1}),), (None,)))
    await rig.until_states("success")
    assert await rig.tasks() == {"0.0": "success", "0.1": "success", "0.2": "success"}


async def watch(rig, *names: str, file: str = "d.py") -> None:
    spec = dag("d", task("a"), on="x")
    datasets = tuple(DatasetSpec(uri("x"), watch_name=name, watch_data=b"\x80") for name in names)
    given = msgspec.structs.replace(loaded(spec, file=file), datasets=datasets[:1])
    await Catalog(rig.database).save([given])


async def saw(rig, sequence: int, *, epoch: int = 1, payload=None, **fields) -> None:
    [(number,)] = await rig.rows("SELECT id FROM trigger WHERE kind = 'watch'")
    message = FiredMessage(
        number, epoch, sequence, -1, -1, -1, 0, 0, encode(payload), reply="done", **fields
    )
    await rig.tell(Subjects.inbound(Subjects.FIRED, number), message)


async def test_what_is_seen_of_a_watched_dataset_is_an_event_once(rig):
    await watch(rig, "test.Bell")
    await rig.rows("UPDATE trigger SET epoch = 1, owner = 't' RETURNING 1")
    told = []
    async with await rig.bus.subscribe("done", told.append):
        await saw(rig, 1, payload={"n": 1}, position=encode(10))
        await saw(rig, 1, payload={"n": 1}, position=encode(10))
        await saw(rig, 2, payload={"n": 2}, epoch=0, position=encode(99))
        await saw(rig, 2, payload=2, id="same", partition="p", position=encode(20))
        await saw(rig, 3, payload=2, id="same", partition="p", position=encode(30))
        await rig.bus.flush()
    assert len(told) == 5
    rows = await rig.rows("SELECT extra, partition, source FROM event ORDER BY id")
    assert rows == [({"n": 1}, None, "watch"), ({"value": 2}, "p", "watch")]
    [row] = await rig.rows("SELECT sequence, position FROM trigger")
    assert row == (3, encode(30))
    await rig.finish("a")
    await rig.finish("a")


async def test_a_watch_lasts_as_long_as_a_file_declares_it(rig):
    await watch(rig, "test.Bell")
    await watch(rig, "test.Bell", file="e.py")
    await rig.rows("UPDATE trigger SET sequence = 5 RETURNING 1")
    await watch(rig)
    assert await rig.rows("SELECT name, sequence FROM trigger") == [("test.Bell", 5)]
    await watch(rig, "test.Other", file="e.py")
    assert await rig.rows("SELECT name, sequence FROM trigger") == [("test.Other", 0)]
    await Catalog(rig.database).remove(["e.py"])
    assert await rig.rows("SELECT * FROM trigger") == []
