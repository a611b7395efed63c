"""Watched datasets, and polls that several share."""

from datetime import UTC, datetime

import msgspec
import pytest

pytestmark = pytest.mark.anyio


def unpacked(data):
    return msgspec.msgpack.decode(data)


async def test_events_of_a_watch_are_counted_and_carry_a_position(rig, source, run_triggerer):
    await run_triggerer()
    number = await rig.add(
        label="w", kind="watch", position=msgspec.msgpack.encode({"offset": 6}), sequence=4
    )
    started = await source.heard("w", "started")
    assert started["position"] == {"offset": 6}
    when = "2026-01-02T03:04:05+00:00"
    await source.tell("w", "fire", payload={"n": 1}, position={"offset": 7}, time=when)
    first = await rig.told(number)
    assert (first.run, first.sequence, first.epoch) == (-1, 5, 1)
    assert unpacked(first.position) == {"offset": 7}
    assert first.time == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    await source.heard("w", "asked")
    assert source.count("w", "acknowledged") == 1
    await source.tell("w", "fire", payload={"n": 2}, position={"offset": 8}, partition="p")
    second = await rig.told(number, times=2)
    assert (second.sequence, second.partition) == (6, "p")


async def test_one_event_of_a_watch_is_under_way_at_a_time(rig, source, run_triggerer):
    rig.answers = False
    await run_triggerer()
    number = await rig.add(label="w", kind="watch")
    await source.heard("w", "started")
    await source.tell("w", "fire", id="1")
    await source.tell("w", "fire", id="2")
    first = await rig.told(number)
    again = await rig.told(number, times=2)
    assert (first.id, again.id) == ("1", "1")
    await rig.answer(again)
    await source.heard("w", "asked")
    message = await rig.until(lambda: next((each for each in rig.fired if each.id == "2"), None))
    assert message.sequence == 2


@pytest.mark.parametrize("how", ["end", "raise"])
async def test_a_watch_that_ends_is_started_again(rig, source, run_triggerer, facts, how):
    await run_triggerer()
    number = await rig.add(label="w", kind="watch")
    await source.heard("w", "started")
    await source.tell("w", "fire", position=[1])
    await source.heard("w", "asked")
    await source.tell("w", how, text="the lake is dry")
    again = await source.heard("w", "started", times=2)
    assert again["position"] == [1]
    told = [each for each in facts if each["event"] == "trigger.watch_failed"]
    assert len(told) == 1

    async def error():
        return (await rig.rows("SELECT error FROM trigger WHERE id = $1", number))[0][0]

    text = "the lake is dry" if how == "raise" else "ended without firing"
    assert text in await rig.until(error)
    await source.tell("w", "fire", position=[2])
    await source.heard("w", "asked", times=2)

    async def well():
        return await error() is None

    await rig.until(well)


async def test_a_watch_goes_on_with_another_host_after_what_is_durable(rig, source, run_triggerer):
    rig.answers = False
    running = await run_triggerer()
    number = await rig.add(label="w", kind="watch")
    await source.heard("w", "started")
    await source.tell("w", "fire", position=[1])
    message = await rig.told(number)
    before = running.host
    running.triggerer.hosting.kill()
    await rig.until(lambda: running.host not in (None, before))
    await rig.answer(message)
    assert (await source.heard("w", "started", times=2))["position"] == [1]
    await source.tell("w", "fire", position=[2])
    assert (await rig.until(lambda: rig.fired[-1] if rig.fired[-1].sequence == 2 else None)).epoch


async def test_equal_polls_are_shared(rig, source, run_triggerer):
    await run_triggerer()
    first = await rig.add(label="a", share="one")
    await source.heard("a", "started")
    second = await rig.add(label="b", share="one")
    other = await rig.add(label="c", share="two")
    await source.heard("c", "started")  # they are started in the order of their numbers
    await source.tell("a", "fire", payload="seen")
    assert unpacked((await rig.told(first)).payload) == "seen"
    assert unpacked((await rig.told(second)).payload) == "seen"
    await source.heard("a", "closed")
    assert source.count("a", "acknowledged") == 1
    assert not source.count("b", "started")
    assert other not in [each.trigger for each in rig.fired]


async def test_who_comes_after_an_event_asks_anew(rig, source, run_triggerer):
    """A file that is there is told once: who joined its poll then would wait for ever."""
    await run_triggerer()
    watch = await rig.add(label="w", kind="watch", share="one")
    await source.heard("w", "started")
    await source.tell("w", "fire", payload=1)
    await rig.told(watch)
    wait = await rig.add(label="a", share="one")
    await source.heard("a", "started")
    await source.tell("a", "fire", payload="a")
    assert unpacked((await rig.told(wait)).payload) == "a"
    await source.tell("w", "fire", payload=2)
    assert (await rig.told(watch, times=2)).sequence == 2
    assert not source.count("w", "closed")


async def test_who_joins_what_ends_is_started_anew(rig, source, run_triggerer):
    await run_triggerer()
    first = await rig.add(label="a", share="one")
    await source.heard("a", "started")
    second = await rig.add(label="b", share="one")
    await rig.add(label="m")
    await source.heard("m", "started")
    await source.tell("a", "end")
    assert (await rig.told(first)).error.message.endswith("ended without firing")
    await source.heard("b", "started")
    assert second not in [each.trigger for each in rig.fired]


async def test_a_poll_goes_on_until_the_last_one_leaves(rig, source, run_triggerer):
    await run_triggerer()
    first = await rig.add(label="a", share="one")
    await source.heard("a", "started")
    second = await rig.add(label="b", share="one")
    await rig.add(label="m")
    await source.heard("m", "started")
    rig.order(first)
    await source.tell("a", "log")
    await source.heard("a", "done")
    rig.order(second)
    await source.heard("a", "closed")
    third = await rig.add(label="c", share="one")
    await source.heard("c", "started")
    assert third
