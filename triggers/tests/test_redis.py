import tempfile
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from pubsubflow_triggers.redis import RedisKey, RedisList, RedisStream
from redis.asyncio import Redis
from redis_server import PASSWORD, redis_server
from trigger_rig import Watched, beside, fired, payloads

from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.testing import JumpingClock

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def url():
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as url:
        yield url


@pytest.fixture
def folder():
    """A folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@asynccontextmanager
async def connected(url):
    client = Redis.from_url(url, decode_responses=True)
    try:
        yield client
    finally:
        await client.aclose()


@pytest.fixture
async def client(url):
    async with connected(url) as client:
        await client.flushall()
        yield client


async def crash(trigger):
    """Take an event and never acknowledge it."""
    events = trigger.run(Watched())
    event = await anext(events)
    await events.aclose()
    return event


async def test_key_fires_when_it_appears_and_again_when_it_changed(url, client):
    async with beside(RedisKey(url=url, key="flag"), 3) as ctx:
        await ctx.until("sleep", 2)
        await client.set("flag", '{"day": 1}')
        await ctx.until("fired", 1)
        await client.set("flag", "two")
        await ctx.until("fired", 2)
        await client.delete("flag")
        await ctx.until("sleep", ctx.seen["sleep"] + 2)
        await client.set("flag", "two")
    values = [event.payload["value"] for event in ctx.events]
    assert values == [{"day": 1}, "two", "two"]


@pytest.mark.parametrize(("stored", "value"), [("3", 3), ("3", "3"), ("up", "up"), ("[1]", [1])])
async def test_key_fires_when_it_has_the_value(url, client, stored, value):
    async with beside(RedisKey(url=url, key="flag", value=value)) as ctx:
        await client.set("flag", "something else")
        await ctx.until("sleep", 2)
        await client.set("flag", stored)
    assert len(ctx.events) == 1


async def test_key_of_another_type_fires_too_but_not_twice(url, client):
    await client.sadd("members", "a")
    (event,) = await fired(RedisKey(url=url, key="members"))
    assert event.payload == {"key": "members", "value": None}
    async with beside(RedisKey(url=url, key="members"), position=event.position) as ctx:
        await ctx.until("sleep", 3)
        ctx.stop()
    assert ctx.events == []


async def test_list_gives_elements_in_order_and_keeps_nothing(url, client):
    async with beside(RedisList(url=url, key="jobs"), 3) as ctx:
        await ctx.until("redis.taking")
        await client.rpush("jobs", '{"n": 1}', "two", "two")
    assert [event.payload["data"] for event in ctx.events] == [{"n": 1}, "two", "two"]
    assert await client.keys() == []


async def test_element_of_a_dead_trigger_comes_back_when_its_lease_is_over(url, client):
    await client.rpush("jobs", "1", "2")
    trigger = RedisList(url=url, key="jobs")
    assert (await crash(trigger)).payload["data"] == 1
    assert await payloads(trigger) == [{"key": "jobs", "data": 2}]
    (holder,) = await client.zrange("jobs:pubsubflow", 0, -1)
    assert await client.lrange(holder, 0, -1) == ["1"]
    await client.zadd("jobs:pubsubflow", {holder: 1})  # long ago
    await client.rpush("jobs", "3")
    assert [p["data"] for p in await payloads(trigger, 2)] == [1, 3]
    assert await client.keys() == []


async def test_group_keeps_its_place_and_acknowledges(url, client):
    ids = [await client.xadd("log", {"n": n, "text": "a b"}) for n in range(3)]
    trigger = RedisStream(url=url, key="log", group="g")
    events = [*await fired(trigger, 2), *await fired(trigger)]
    assert [event.id for event in events] == ids
    assert events[0].payload == {"key": "log", "id": ids[0], "data": {"n": 0, "text": "a b"}}
    assert (await client.xpending("log", "g"))["pending"] == 0


async def test_unacknowledged_entry_is_claimed_by_its_own_consumer_at_once(url, client):
    for n in range(2):
        await client.xadd("log", {"n": n})
    mine = RedisStream(url=url, key="log", group="g", consumer="me")
    seen = await crash(mine)
    other = await fired(RedisStream(url=url, key="log", group="g"))
    again = await fired(mine)
    assert [event.payload["data"]["n"] for event in (seen, *other, *again)] == [0, 1, 0]
    assert again[0].id == seen.id


async def test_unacknowledged_entry_is_claimed_by_others_when_it_is_idle(url, client):
    for n in range(2):
        await client.xadd("log", {"n": n})
    trigger = RedisStream(url=url, key="log", group="g", idle=timedelta(0))
    seen = await crash(trigger)
    assert [event.payload["data"]["n"] for event in await fired(trigger, 2)] == [0, 1]
    assert seen.payload["data"]["n"] == 0


async def test_without_a_group_it_goes_on_from_the_position(url, client):
    ids = [await client.xadd("log", {"n": n}) for n in range(3)]
    events = await fired(RedisStream(url=url, key="log"), 2, position=ids[0])
    assert [event.position for event in events] == ids[1:]


async def test_without_a_group_it_fires_for_what_came_since_the_wait_began(url, client):
    begun = JumpingClock()
    since = int(begun.now().timestamp() * 1000)
    await client.xadd("log", {"n": 1}, id=f"{since - 1}-7")
    await client.xadd("log", {"n": 2}, id=f"{since}-0")
    (event,) = await fired(RedisStream(url=url, key="log"), clock=begun)
    assert event.payload["data"] == {"n": 2}
    assert event.time == begun.now()


async def test_stream_is_read_again_after_the_server_was_away(folder):
    with redis_server(folder) as url:
        async with connected(url) as client:
            await client.xadd("log", {"n": 1})
    async with beside(RedisStream(url=url, key="log", group="g"), 2) as ctx:
        await ctx.until("trigger.server_away", 2)
        with redis_server(folder):
            await ctx.until("fired")
            async with connected(url) as client:
                await client.xadd("log", {"n": 2})
            await ctx.until("fired", 2)
    assert [event.payload["data"]["n"] for event in ctx.events] == [1, 2]


async def test_wrong_password_and_wrong_type_fail(url, client):
    with pytest.raises(TriggerError, match="invalid username-password"):
        await fired(RedisKey(url=url.replace(PASSWORD, "wrong"), key="x"))
    await client.set("text", "x")
    with pytest.raises(TriggerError, match="WRONGTYPE"):
        await fired(RedisStream(url=url, key="text"))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: RedisKey(url="http://x", key="a"), "url must be redis"),
        (lambda: RedisKey(url="redis://x", key=""), "key is empty"),
        (lambda: RedisList(url="redis://x", key="a", lease=timedelta(0)), "lease must be"),
        (lambda: RedisStream(url="redis://x", key="a", group=""), "group or consumer is empty"),
        (lambda: RedisStream(url="redis://x", key="a", consumer="c"), "needs a group"),
        (lambda: RedisStream(url="redis://x", key="a", deliver="some"), "deliver must be"),
    ],
)
def test_impossible_fields_are_refused(make, text):
    with pytest.raises(DefinitionError, match=text):
        make()


def test_their_fields_travel():
    for trigger in (
        RedisKey(url="redis://x", key="a", value={"b": [1]}),
        RedisStream(url="redis://x", key="a", group="g", idle=timedelta(seconds=3)),
    ):
        packed = msgspec.msgpack.encode(trigger)
        assert msgspec.msgpack.decode(packed, type=type(trigger)) == trigger
