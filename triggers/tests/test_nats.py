import itertools
from contextlib import asynccontextmanager
from datetime import timedelta

import nats
import pytest
from nats.js.api import KeyValueConfig
from pubsubflow_triggers.nats import JetStreamMessage, KvKey, NatsMessage
from trigger_rig import Watched, beside, fired

from pubsubflow.embedded import EmbeddedServers
from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.testing import JumpingClock

pytestmark = pytest.mark.anyio
_numbers = itertools.count(1)


def address(servers):
    return servers.nats.url.replace("://", f"://{servers.nats.token}@")


@pytest.fixture
def url(servers):
    return address(servers)


@asynccontextmanager
async def connected(url):
    client = await nats.connect(url)
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture
async def client(url):
    async with connected(url) as client:
        yield client


@pytest.fixture
async def stream(client):
    """A stream of the test's own; its subjects begin with its name."""
    name = f"TEST{next(_numbers)}"
    await client.jetstream().add_stream(name=name, subjects=[f"{name}.>"])
    return name


@pytest.fixture
async def bucket(client):
    """A key-value bucket of the test's own, and its name."""
    name = f"BUCKET{next(_numbers)}"
    return await client.jetstream().create_key_value(KeyValueConfig(bucket=name, history=5)), name


async def test_messages_come_in_order_with_their_json_and_headers(url, client):
    async with beside(NatsMessage(url=url, subject="sales.*"), 3) as ctx:
        await ctx.until("nats.listening")
        await client.publish("sales.pl", b'{"rows": 3}', headers={"X-Day": "Monday"})
        await client.publish("other", b"no")
        await client.publish("sales.de", b"plain")
        await client.publish("sales.fr", b"\xff")
    assert [event.payload for event in ctx.events] == [
        {"subject": "sales.pl", "data": {"rows": 3}, "headers": {"X-Day": "Monday"}},
        {"subject": "sales.de", "data": "plain", "headers": {}},
        {"subject": "sales.fr", "data": {"base64": "/w=="}, "headers": {}},
    ]


async def test_member_of_a_queue_group_takes_messages_from_the_others(url, client):
    others = []

    async def take(message):
        others.append(message.data)

    await client.subscribe("work", queue="crew", cb=take)
    async with beside(NatsMessage(url=url, subject="work", queue="crew")) as ctx:
        await ctx.until("nats.listening")
        for number in itertools.count():
            if ctx.events:
                break
            await client.publish("work", str(number).encode())
            await client.flush()
    assert str(ctx.events[0].payload["data"]).encode() not in others


async def test_durable_keeps_its_place_and_acknowledges(url, client, stream):
    for number in range(4):
        await client.jetstream().publish(f"{stream}.a", str(number).encode())
    trigger = JetStreamMessage(url=url, stream=stream, durable="keeper")
    first, second = await fired(trigger, 2)
    (third,) = await fired(trigger)
    assert [event.payload["data"] for event in (first, second, third)] == [0, 1, 2]
    assert [event.id for event in (first, second, third)] == [f"{stream}:{n}" for n in (1, 2, 3)]
    info = await client.jetstream().consumer_info(stream, "keeper")
    assert (info.num_ack_pending, info.num_pending) == (0, 1)


async def test_what_was_not_acknowledged_comes_again_under_the_same_id(url, client, stream):
    await client.jetstream().add_consumer(stream, durable_name="keeper", ack_wait=0.1)
    await client.jetstream().publish(f"{stream}.a", b"x")
    trigger = JetStreamMessage(url=url, stream=stream, durable="keeper")
    crashed = trigger.run(Watched())
    seen = await anext(crashed)
    await crashed.aclose()
    (again,) = await fired(trigger)
    assert again.id == seen.id


async def test_without_a_durable_it_goes_on_from_the_position(url, client, stream):
    for subject in "abaa":
        await client.jetstream().publish(f"{stream}.{subject}", b"x")
    trigger = JetStreamMessage(url=url, stream=stream, subject=f"{stream}.a")
    assert [event.position for event in await fired(trigger, 3)] == [1, 3, 4]
    assert [event.position for event in await fired(trigger, 2, position=1)] == [3, 4]


async def test_without_a_durable_it_fires_for_what_came_since_the_wait_began(url, client, stream):
    await client.jetstream().publish(f"{stream}.a", b"before")
    stored = (await client.jetstream().get_msg(stream, 1)).time
    await client.jetstream().publish(f"{stream}.a", b"after")
    begun = JumpingClock(stored + timedelta(microseconds=1))
    (event,) = await fired(JetStreamMessage(url=url, stream=stream), clock=begun)
    assert event.payload["data"] == "after"


async def test_missing_stream_and_wrong_token_fail(url, servers):
    with pytest.raises(TriggerError, match="stream not found"):
        await fired(JetStreamMessage(url=url, stream="NONE"))
    with pytest.raises(TriggerError, match="Authorization"):
        await fired(NatsMessage(url=servers.nats.url.replace("://", "://wrong@"), subject="x"))


async def test_key_fires_with_each_change(url, bucket):
    bucket, name = bucket
    async with beside(KvKey(url=url, bucket=name, key="flag"), 3) as ctx:
        await ctx.until("nats.consuming")
        await bucket.put("flag", b'"up"')
        await bucket.put("other", b"1")
        await bucket.delete("flag")
        await bucket.put("flag", b"down")
    assert [
        (event.payload["value"], event.payload["operation"], event.id) for event in ctx.events
    ] == [
        ("up", "PUT", f"{name}/flag:1"),
        (None, "DEL", f"{name}/flag:3"),
        ("down", "PUT", f"{name}/flag:4"),
    ]


async def test_key_fires_when_it_has_the_value_also_if_it_has_it_already(url, bucket):
    bucket, name = bucket
    trigger = KvKey(url=url, bucket=name, key="jobs.*", value={"done": True})
    async with beside(trigger) as ctx:
        await ctx.until("nats.consuming")
        await bucket.put("jobs.1", b'{"done": false}')
        await bucket.put("jobs.1", b'{"done": true}')
    (again,) = await fired(trigger)
    assert [again.payload] == [event.payload for event in ctx.events]
    assert again.payload["key"] == "jobs.1"
    async with beside(trigger, position=again.position) as ctx:
        await ctx.until("nats.consuming")
        await bucket.put("jobs.2", b'{"done": true}')
    assert ctx.events[0].payload["key"] == "jobs.2"


async def test_they_connect_again_after_the_server_was_away(tmp_path, anyio_backend):
    async with EmbeddedServers(tmp_path) as servers:
        url, port = address(servers), int(servers.nats.url.rpartition(":")[2])
        async with connected(url) as client:
            await client.jetstream().add_stream(name="S", subjects=["s"])
    trigger = JetStreamMessage(url=url, stream="S", durable="d")
    async with beside(trigger) as ctx:
        await ctx.until("trigger.server_away", 2)
        async with EmbeddedServers(tmp_path, nats_port=port) as servers:
            await ctx.until("nats.consuming")
            async with connected(url) as client:
                await client.jetstream().publish("s", b"x")
            await ctx.until("fired")
    assert ctx.events[0].payload["data"] == "x"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: NatsMessage(url="http://x", subject="a"), "url must be nats"),
        (lambda: NatsMessage(url="nats://x", subject="a..b"), "not a valid NATS subject"),
        (lambda: JetStreamMessage(url="nats://x", stream="a.b"), "not a valid NATS name"),
        (
            lambda: JetStreamMessage(url="nats://x", stream="a", durable="b c"),
            "not a valid NATS name",
        ),
        (lambda: JetStreamMessage(url="nats://x", stream="a", deliver="some"), "deliver must be"),
        (lambda: KvKey(url="nats://x", bucket="a", key=""), "subject is empty"),
    ],
)
def test_impossible_fields_are_refused(make, text):
    with pytest.raises(DefinitionError, match=text):
        make()
