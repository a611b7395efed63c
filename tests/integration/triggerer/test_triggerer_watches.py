"""Watched datasets, and polls that several share."""

from datetime import UTC, datetime

import msgspec
import pytest

pytestmark = pytest.mark.anyio


def unpacked(data):
    return msgspec.msgpack.decode(data)


async def test_events_of_a_watch_are_counted_and_carry_a_position(harness, source, run_triggerer):
    await run_triggerer()
    number = await harness.add(
        label="w", kind="watch", position=msgspec.msgpack.encode({"offset": 6}), sequence=4
    )
    started = await source.reported("w", "started")
    assert started["position"] == {"offset": 6}
    when = "2026-01-02T03:04:05+00:00"
    await source.send("w", "fire", payload={"n": 1}, position={"offset": 7}, time=when)
    first = await harness.until_fired(number)
    assert (first.run, first.sequence, first.epoch) == (-1, 5, 1)
    assert unpacked(first.position) == {"offset": 7}
    assert first.time == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    await source.reported("w", "resumed")
    assert source.count("w", "acknowledged") == 1
    await source.send("w", "fire", payload={"n": 2}, position={"offset": 8}, partition="p")
    second = await harness.until_fired(number, times=2)
    assert (second.sequence, second.partition) == (6, "p")


async def test_one_event_of_a_watch_is_under_way_at_a_time(harness, source, run_triggerer):
    harness.answers = False
    await run_triggerer()
    number = await harness.add(label="w", kind="watch")
    await source.reported("w", "started")
    await source.send("w", "fire", id="1")
    await source.send("w", "fire", id="2")
    first = await harness.until_fired(number)
    again = await harness.until_fired(number, times=2)
    assert (first.id, again.id) == ("1", "1")
    await harness.answer(again)
    await source.reported("w", "resumed")
    message = await harness.until(
        lambda: next((each for each in harness.fired if each.id == "2"), None)
    )
    assert message.sequence == 2


@pytest.mark.parametrize("how", ["end", "raise"])
async def test_a_watch_that_ends_is_started_again(harness, source, run_triggerer, facts, how):
    await run_triggerer()
    number = await harness.add(label="w", kind="watch")
    await source.reported("w", "started")
    await source.send("w", "fire", position=[1])
    await source.reported("w", "resumed")
    await source.send("w", how, text="the lake is dry")
    again = await source.reported("w", "started", times=2)
    assert again["position"] == [1]
    logged = [each for each in facts if each["event"] == "trigger.watch_failed"]
    assert len(logged) == 1

    async def error():
        return (await harness.rows("SELECT error FROM trigger WHERE id = $1", number))[0][0]

    text = "the lake is dry" if how == "raise" else "ended without firing"
    assert text in await harness.until(error)
    await source.send("w", "fire", position=[2])
    await source.reported("w", "resumed", times=2)

    async def well():
        return await error() is None

    await harness.until(well)


async def test_a_watch_whose_source_is_away_shows_why_and_since_when(
    harness, source, run_triggerer, facts
):
    await run_triggerer()
    number = await harness.add(label="w", kind="watch")
    await source.reported("w", "started")

    async def stored(error):
        async def found():
            row = (await harness.rows("SELECT * FROM trigger WHERE id = $1", number))[0]
            return [row["error_since"]] if row["error"] == error else None

        return (await harness.until(found))[0]

    away = "nats: cannot reach nats://ann:hush@nats.example.com"
    for error in (away, away, "nats: no route"):
        await source.send("w", "trouble", error=error)
    await source.reported("w", "done", times=3)
    since = await stored("nats: no route")
    assert since is not None
    warned = [each["error"] for each in facts if each["event"] == "trigger.source_away"]
    assert warned == [away, "nats: no route"]
    await source.send("w", "trouble", error=away)
    assert await stored("nats: cannot reach nats://***@nats.example.com") == since
    await source.send("w", "trouble", error=None)
    assert await stored(None) is None
    assert [each for each in facts if each["event"] == "trigger.source_back"]


async def test_a_watch_goes_on_with_another_host_after_what_is_durable(
    harness, source, run_triggerer
):
    harness.answers = False
    running = await run_triggerer()
    number = await harness.add(label="w", kind="watch")
    await source.reported("w", "started")
    await source.send("w", "fire", position=[1])
    message = await harness.until_fired(number)
    before = running.host
    running.triggerer.host.kill()
    await harness.until(lambda: running.host not in (None, before))
    await harness.answer(message)
    assert (await source.reported("w", "started", times=2))["position"] == [1]
    await source.send("w", "fire", position=[2])
    assert (
        await harness.until(lambda: harness.fired[-1] if harness.fired[-1].sequence == 2 else None)
    ).epoch


async def test_equal_polls_are_shared(harness, source, run_triggerer):
    await run_triggerer()
    first = await harness.add(label="a", share="one")
    await source.reported("a", "started")
    second = await harness.add(label="b", share="one")
    other = await harness.add(label="c", share="two")
    await source.reported("c", "started")  # they are started in the order of their numbers
    await source.send("a", "fire", payload="seen")
    assert unpacked((await harness.until_fired(first)).payload) == "seen"
    assert unpacked((await harness.until_fired(second)).payload) == "seen"
    await source.reported("a", "closed")
    assert source.count("a", "acknowledged") == 1
    assert not source.count("b", "started")
    assert other not in [each.trigger for each in harness.fired]


async def test_one_that_comes_after_an_event_polls_anew(harness, source, run_triggerer):
    """A file that is there fires once: one that joined its poll then would wait for ever."""
    await run_triggerer()
    watch = await harness.add(label="w", kind="watch", share="one")
    await source.reported("w", "started")
    await source.send("w", "fire", payload=1)
    await harness.until_fired(watch)
    wait = await harness.add(label="a", share="one")
    await source.reported("a", "started")
    await source.send("a", "fire", payload="a")
    assert unpacked((await harness.until_fired(wait)).payload) == "a"
    await source.send("w", "fire", payload=2)
    assert (await harness.until_fired(watch, times=2)).sequence == 2
    assert not source.count("w", "closed")


async def test_who_joins_what_ends_is_started_anew(harness, source, run_triggerer):
    await run_triggerer()
    first = await harness.add(label="a", share="one")
    await source.reported("a", "started")
    second = await harness.add(label="b", share="one")
    await harness.add(label="m")
    await source.reported("m", "started")
    await source.send("a", "end")
    assert (await harness.until_fired(first)).error.message.endswith("ended without firing")
    await source.reported("b", "started")
    assert second not in [each.trigger for each in harness.fired]


async def test_a_poll_goes_on_until_the_last_one_leaves(harness, source, run_triggerer):
    await run_triggerer()
    first = await harness.add(label="a", share="one")
    await source.reported("a", "started")
    second = await harness.add(label="b", share="one")
    await harness.add(label="m")
    await source.reported("m", "started")
    await harness.end(first)
    await source.send("a", "log")
    await source.reported("a", "done")
    await harness.end(second)
    await source.reported("a", "closed")
    third = await harness.add(label="c", share="one")
    await source.reported("c", "started")
    assert third
