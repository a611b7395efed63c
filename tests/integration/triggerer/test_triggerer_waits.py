"""Waits: a trigger runs, fires once, hears that it is durable, and is closed."""

import msgspec
import pytest

pytestmark = pytest.mark.anyio


def payload(message):
    return msgspec.msgpack.decode(message.payload)


async def test_event_of_a_third_partys_trigger_reaches_the_manager(harness, source, run_triggerer):
    await run_triggerer()
    number = await harness.add(label="a", run=13, node=2, map_index=5, delivery=7, wait_index=1)
    await source.reported("a", "started")
    await source.send("a", "fire", payload={"rows": [1, None, "x"]}, id="e1")
    message = await harness.until_fired(number)
    assert (message.run, message.node, message.map_index) == (13, 2, 5)
    assert (message.delivery, message.slot, message.epoch) == (7, 1, 1)
    assert payload(message) == {"rows": [1, None, "x"]}
    assert (message.id, message.error, message.sequence) == ("e1", None, 0)
    await source.reported("a", "closed")
    await harness.until_deleted(number)


async def test_what_was_stored_before_the_start_is_run(harness, source, run_triggerer):
    await harness.add(label="a", notify=False)
    await run_triggerer()
    await source.reported("a", "started")


async def test_acknowledged_and_closed_only_after_the_reply(harness, source, run_triggerer):
    harness.answers = False
    await run_triggerer()
    number = await harness.add(label="a")
    await source.reported("a", "started")
    await source.send("a", "fire", payload=1, id="e1")
    await harness.until_fired(number)
    again = await harness.until_fired(number, times=2)  # no reply: published again
    assert payload(again) == 1
    assert not source.count("a", "acknowledged")
    await harness.answer(again)
    assert await source.reported("a", "acknowledged") == {
        "id": "e1",
        "pid": source.reports[0][2]["pid"],
    }
    await source.reported("a", "closed")
    assert not source.count("a", "resumed")  # it is not resumed


async def test_failing_acknowledgement_is_logged_and_harms_no_other(
    harness, source, run_triggerer, facts
):
    await run_triggerer()
    number = await harness.add(label="a")
    await source.reported("a", "started")
    await source.send("a", "fire", payload=1, deaf=True)
    await source.reported("a", "closed")
    await harness.until_deleted(number)
    logged = await harness.until(
        lambda: [each for each in facts if each["event"] == "trigger.acknowledge_failed"]
    )
    assert logged[0]["trigger"] == "remote"
    assert "the source is deaf" in logged[0]["error"]


@pytest.mark.parametrize(
    ("order", "name", "text"),
    [
        ({"do": "end"}, "TriggerError", "trigger 'remote' ended without firing"),
        ({"do": "raise", "text": "bucket is gone"}, "TriggerError", "bucket is gone"),
        ({"do": "yield", "value": 1}, "TriggerError", "it yielded a int"),
        ({"do": "fire", "payload": 2**70}, "TriggerError", "its event is not a JSON value"),
        ({"do": "fire", "time": "2026-01-01T00:00:00"}, "TriggerError", "has no zone"),
    ],
)
async def test_a_wait_that_cannot_fire_fails(harness, source, run_triggerer, order, name, text):
    await run_triggerer()
    number = await harness.add(label="a")
    await source.reported("a", "started")
    await source.send("a", **order)
    error = (await harness.until_fired(number)).error
    assert error.type == name
    assert text in error.message
    assert "triggerer/" not in error.traceback
    await source.reported("a", "closed")
    await harness.until_deleted(number)


async def test_an_event_that_nats_does_not_take_fails_the_wait(harness, source, run_triggerer):
    await run_triggerer()
    number = await harness.add(label="a")
    await source.reported("a", "started")
    await source.send("a", "fire", large=harness.bus.max_payload)
    error = (await harness.until_fired(number)).error
    assert error.type == "MessageRefused"
    assert "make it smaller" in error.message
    await source.reported("a", "closed")


@pytest.mark.parametrize(
    ("name", "fields", "text"),
    [
        ("nowhere", {}, "install its package beside the daemon"),
        ("broken", {}, "cannot be imported: RuntimeError('no such driver')"),
        ("other", {}, "is not a subclass of pubsubflow.Trigger"),
        ("nap", {"seconds": "many"}, "install the same version here and where the task runs"),
    ],
)
async def test_a_trigger_that_cannot_be_loaded_fails_for_good(
    harness, run_triggerer, name, fields, text
):
    await run_triggerer()
    error = (await harness.until_fired(await harness.add(name, **fields))).error
    assert text in error.message
    assert error.final


async def test_an_ended_wait_is_closed_and_not_cancelled(harness, source, run_triggerer):
    await run_triggerer()
    number = await harness.add(label="a")
    await source.reported("a", "started")
    await harness.end(number)
    await source.reported("a", "closed")
    assert not source.count("a", "cancelled")


async def test_a_row_that_vanished_is_noticed_without_an_order(harness, source, run_triggerer):
    await run_triggerer()
    number = await harness.add(label="a")
    await source.reported("a", "started")
    await harness.rows("DELETE FROM trigger WHERE id = $1", number)
    await source.reported("a", "closed")


async def test_users_cancellation_cleans_up_and_removes_the_row(harness, source, run_triggerer):
    await run_triggerer()
    number = await harness.add(label="a")
    await source.reported("a", "started")
    await harness.rows("UPDATE trigger SET cancelled = true WHERE id = $1", number)
    harness.order(fresh=True)
    await source.reported("a", "cancelled")
    await source.reported("a", "closed")
    await harness.until_deleted(number)
    assert source.count("a", "cancelled") == 1


async def test_a_cancelled_trigger_without_a_lease_is_cleaned_up(
    harness, source, run_triggerer, facts
):
    await run_triggerer(capacity=0)
    number = await harness.add(label="fails", cancelled=True)
    await source.reported("fails", "cancelled")
    await harness.until_deleted(number)
    assert not source.count("fails", "started")
    assert [each["error"] for each in facts if each["event"] == "trigger.cleanup_failed"] == [
        "OSError: cannot clean up"
    ]


async def test_a_clean_up_that_crashes_the_host_is_given_up(harness, source, run_triggerer, facts):
    await run_triggerer()
    number = await harness.add(label="crashes", cancelled=True)
    await harness.add(label="a")
    await harness.until_deleted(number)
    assert [each["trigger_id"] for each in facts if each["event"] == "trigger.cleanup_failed"] == [
        number
    ]
    await source.reported("a", "started")


async def test_one_that_is_gone_because_of_its_event_hears_that_it_is_durable(
    harness, source, run_triggerer
):
    harness.answers = False
    await run_triggerer()
    number = await harness.add(label="a")
    await source.reported("a", "started")
    await source.send("a", "fire", id="e1")
    message = await harness.until_fired(number)
    harness.order(number)
    await harness.bus.flush()
    await harness.answer(message)
    await source.reported("a", "acknowledged")
    await source.reported("a", "closed")


async def test_one_whose_event_is_refused_is_closed_without_acknowledgement(
    harness, source, run_triggerer
):
    harness.answers = False
    await run_triggerer()
    number = await harness.add(label="a")
    await source.reported("a", "started")
    await source.send("a", "fire", id="e1")
    await harness.until_fired(number)
    await harness.rows("DELETE FROM trigger WHERE id = $1", number)
    await source.reported("a", "closed")
    assert not source.count("a", "acknowledged")


async def test_naps_end_in_time(harness, run_triggerer):
    await run_triggerer()
    numbers = [await harness.add("nap", seconds=each / 100) for each in (30, 10, 20)]
    for number in numbers:
        await harness.until_fired(number)
    assert [each.trigger for each in harness.fired] == [numbers[1], numbers[2], numbers[0]]


async def test_log_lines_reach_the_daemons_log(harness, source, run_triggerer, facts):
    await run_triggerer()
    number = await harness.add(label="a")
    await source.reported("a", "started")
    await source.send("a", "log")
    await source.reported("a", "done")
    logged = await harness.until(
        lambda: [each for each in facts if each["event"] == "remote.logged"]
    )
    assert logged == [
        {
            "event": "remote.logged",
            "log_level": "info",
            "trigger": "remote",
            "trigger_id": number,
            "text": "hello",
            "level_": 1,
        }
    ]


async def test_the_host_ends_when_it_is_idle_and_comes_back(harness, source, run_triggerer):
    running = await run_triggerer(idle_seconds=0.2)
    assert running.host is None
    number = await harness.add(label="a")
    await source.reported("a", "started")
    await source.send("a", "fire")
    await harness.until_deleted(number)
    await harness.until(lambda: running.host is None)
    await harness.add(label="b")
    await source.reported("b", "started")
