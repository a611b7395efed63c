"""Waits: a trigger runs, fires once, hears that it is durable, and is closed."""

import msgspec
import pytest

pytestmark = pytest.mark.anyio


def payload(message):
    return msgspec.msgpack.decode(message.payload)


async def test_event_of_a_third_partys_trigger_reaches_the_manager(rig, source, run_triggerer):
    await run_triggerer()
    number = await rig.add(label="a", run=13, node=2, map_index=5, delivery=7, slot=1)
    await source.heard("a", "started")
    await source.tell("a", "fire", payload={"rows": [1, None, "x"]}, id="e1")
    message = await rig.told(number)
    assert (message.run, message.node, message.map_index) == (13, 2, 5)
    assert (message.delivery, message.slot, message.epoch) == (7, 1, 1)
    assert payload(message) == {"rows": [1, None, "x"]}
    assert (message.id, message.error, message.sequence) == ("e1", None, 0)
    await source.heard("a", "closed")
    await rig.gone(number)


async def test_what_was_stored_before_the_start_is_run(rig, source, run_triggerer):
    await rig.add(label="a", tell=False)
    await run_triggerer()
    await source.heard("a", "started")


async def test_acknowledged_and_closed_only_after_the_reply(rig, source, run_triggerer):
    rig.answers = False
    await run_triggerer()
    number = await rig.add(label="a")
    await source.heard("a", "started")
    await source.tell("a", "fire", payload=1, id="e1")
    await rig.told(number)
    again = await rig.told(number, times=2)  # no answer: told again
    assert payload(again) == 1
    assert not source.count("a", "acknowledged")
    await rig.answer(again)
    assert await source.heard("a", "acknowledged") == {"id": "e1", "pid": source.said[0][2]["pid"]}
    await source.heard("a", "closed")
    assert not source.count("a", "asked")  # nothing more is asked of it


async def test_failing_acknowledgement_is_told_and_harms_nobody(rig, source, run_triggerer, facts):
    await run_triggerer()
    number = await rig.add(label="a")
    await source.heard("a", "started")
    await source.tell("a", "fire", payload=1, deaf=True)
    await source.heard("a", "closed")
    await rig.gone(number)
    told = await rig.until(
        lambda: [each for each in facts if each["event"] == "trigger.acknowledge_failed"]
    )
    assert told[0]["trigger"] == "remote"
    assert "the source is deaf" in told[0]["error"]


@pytest.mark.parametrize(
    ("order", "name", "text"),
    [
        ({"do": "end"}, "TriggerError", "trigger 'remote' ended without firing"),
        ({"do": "raise", "text": "bucket is gone"}, "TriggerError", "bucket is gone"),
        ({"do": "yield", "value": 1}, "TriggerError", "it yielded a int"),
        ({"do": "fire", "payload": 2**70}, "TriggerError", "its event is no JSON value"),
        ({"do": "fire", "time": "2026-01-01T00:00:00"}, "TriggerError", "has no zone"),
    ],
)
async def test_a_wait_that_cannot_fire_fails(rig, source, run_triggerer, order, name, text):
    await run_triggerer()
    number = await rig.add(label="a")
    await source.heard("a", "started")
    await source.tell("a", **order)
    error = (await rig.told(number)).error
    assert error.type == name
    assert text in error.message
    assert "triggerer/" not in error.traceback
    await source.heard("a", "closed")
    await rig.gone(number)


async def test_an_event_that_nats_does_not_take_fails_the_wait(rig, source, run_triggerer):
    await run_triggerer()
    number = await rig.add(label="a")
    await source.heard("a", "started")
    await source.tell("a", "fire", large=rig.bus.max_payload)
    error = (await rig.told(number)).error
    assert error.type == "MessageRefused"
    assert "make it smaller" in error.message
    await source.heard("a", "closed")


@pytest.mark.parametrize(
    ("name", "fields", "text"),
    [
        ("nowhere", {}, "install the package that has it beside the daemon"),
        ("broken", {}, "cannot be imported: RuntimeError('no such driver')"),
        ("other", {}, "is no subclass of pubsubflow.Trigger"),
        ("nap", {"seconds": "many"}, "was another version installed where the task ran?"),
    ],
)
async def test_a_trigger_that_cannot_be_loaded_fails_for_good(
    rig, run_triggerer, name, fields, text
):
    await run_triggerer()
    error = (await rig.told(await rig.add(name, **fields))).error
    assert text in error.message
    assert error.final


async def test_what_nobody_waits_for_is_closed_and_not_cancelled(rig, source, run_triggerer):
    await run_triggerer()
    number = await rig.add(label="a")
    await source.heard("a", "started")
    await rig.rows("DELETE FROM trigger WHERE id = $1", number)
    rig.order(number)
    await source.heard("a", "closed")
    assert not source.count("a", "cancelled")


async def test_a_row_that_vanished_is_noticed_without_an_order(rig, source, run_triggerer):
    await run_triggerer()
    number = await rig.add(label="a")
    await source.heard("a", "started")
    await rig.rows("DELETE FROM trigger WHERE id = $1", number)
    await source.heard("a", "closed")


async def test_users_cancellation_cleans_up_and_removes_the_row(rig, source, run_triggerer):
    await run_triggerer()
    number = await rig.add(label="a")
    await source.heard("a", "started")
    await rig.rows("UPDATE trigger SET cancelled = true WHERE id = $1", number)
    rig.order(fresh=True)
    await source.heard("a", "cancelled")
    await source.heard("a", "closed")
    await rig.gone(number)
    assert source.count("a", "cancelled") == 1


async def test_a_cancelled_trigger_that_nobody_ran_is_cleaned_up(rig, source, run_triggerer, facts):
    await run_triggerer(capacity=0)
    number = await rig.add(label="fails", cancelled=True)
    await source.heard("fails", "cancelled")
    await rig.gone(number)
    assert not source.count("fails", "started")
    assert [each["error"] for each in facts if each["event"] == "trigger.cleanup_failed"] == [
        "OSError: cannot clean up"
    ]


async def test_a_clean_up_that_crashes_the_host_is_given_up(rig, source, run_triggerer, facts):
    await run_triggerer()
    number = await rig.add(label="crashes", cancelled=True)
    await rig.add(label="a")
    await rig.gone(number)
    assert [each["number"] for each in facts if each["event"] == "trigger.cleanup_failed"] == [
        number
    ]
    await source.heard("a", "started")


async def test_one_that_is_gone_because_of_its_event_hears_that_it_is_durable(
    rig, source, run_triggerer
):
    rig.answers = False
    await run_triggerer()
    number = await rig.add(label="a")
    await source.heard("a", "started")
    await source.tell("a", "fire", id="e1")
    message = await rig.told(number)
    rig.order(number)
    await rig.bus.flush()
    await rig.answer(message)
    await source.heard("a", "acknowledged")
    await source.heard("a", "closed")


async def test_one_whose_event_nobody_wants_is_closed_without_acknowledgement(
    rig, source, run_triggerer
):
    rig.answers = False
    await run_triggerer()
    number = await rig.add(label="a")
    await source.heard("a", "started")
    await source.tell("a", "fire", id="e1")
    await rig.told(number)
    await rig.rows("DELETE FROM trigger WHERE id = $1", number)
    await source.heard("a", "closed")
    assert not source.count("a", "acknowledged")


async def test_naps_end_in_time(rig, run_triggerer):
    await run_triggerer()
    numbers = [await rig.add("nap", seconds=each / 100) for each in (30, 10, 20)]
    for number in numbers:
        await rig.told(number)
    assert [each.trigger for each in rig.fired] == [numbers[1], numbers[2], numbers[0]]


async def test_log_lines_reach_the_daemons_log(rig, source, run_triggerer, facts):
    await run_triggerer()
    number = await rig.add(label="a")
    await source.heard("a", "started")
    await source.tell("a", "log")
    await source.heard("a", "done")
    told = await rig.until(lambda: [each for each in facts if each["event"] == "remote.said"])
    assert told == [
        {
            "event": "remote.said",
            "log_level": "info",
            "trigger": "remote",
            "number": number,
            "text": "hello",
            "level_": 1,
        }
    ]


async def test_the_host_ends_when_it_is_idle_and_comes_back(rig, source, run_triggerer):
    running = await run_triggerer(idle_seconds=0.2)
    assert running.host is None
    number = await rig.add(label="a")
    await source.heard("a", "started")
    await source.tell("a", "fire")
    await rig.gone(number)
    await rig.until(lambda: running.host is None)
    await rig.add(label="b")
    await source.heard("b", "started")
