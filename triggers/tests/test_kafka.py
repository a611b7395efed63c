import asyncio
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from pubsubflow_triggers import KafkaMessage, kafka_reader
from trigger_rig import beside, fired

from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.testing import JumpingClock, round_trip
from support import kafka_broker
from support.kafka_broker import answering, make_topic, producing
from support.kafka_front import fronted

pytestmark = pytest.mark.anyio

_numbers = count(1)


@pytest.fixture(scope="module")
async def port(tmp_path_factory, anyio_backend):
    with kafka_broker.kafka_broker(tmp_path_factory.mktemp("kafka")) as port:
        await answering(port)
        yield port


@pytest.fixture(scope="module")
async def producer(port):
    async with producing(port) as producer:
        yield producer


@pytest.fixture
async def topic(port):
    name = f"orders-{next(_numbers)}"
    await make_topic(port, name, 2)
    return name


def trigger(port, topic, **fields):
    return KafkaMessage(url=f"kafka://127.0.0.1:{port}", topic=topic, **fields)


async def send(producer, topic, *values, partition=0, **fields):
    for value in values:
        await producer.send_and_wait(topic, value, partition=partition, **fields)


def now():
    return JumpingClock(datetime.now(UTC))


def offsets(events):
    return [event.id.split("/", 1)[1] for event in events]


async def test_a_message_has_key_value_headers_and_time(port, topic, producer):
    headers = [("source", b"shop"), ("tag", b"a"), ("tag", b"b"), ("raw", b"\xff")]
    await send(
        producer, topic, b'{"rows": 3}', key=b"eu", headers=headers, timestamp_ms=1_800_000_000_000
    )
    (event,) = await fired(trigger(port, topic, deliver="all", partition="key"))
    moment = datetime.fromtimestamp(1_800_000_000, UTC)
    assert event.payload == {
        "topic": topic,
        "partition": 0,
        "offset": 0,
        "time": moment.isoformat(),
        "key": "eu",
        "value": {"rows": 3},
        "headers": {"source": "shop", "tag": ["a", "b"], "raw": {"base64": "/w=="}},
    }
    assert (event.id, event.partition, event.time) == (f"{topic}/0/0", "eu", moment)
    assert event.position == {"offsets": {"0": 1, "1": 0}}


async def test_it_goes_on_from_the_place_of_each_partition(port, topic, producer):
    await send(producer, topic, b"1", b"2")
    await send(producer, topic, b"3", partition=1)
    events = await fired(trigger(port, topic, deliver="all"), 3)
    assert sorted(offsets(events)) == ["0/0", "0/1", "1/0"]
    for seen in (1, 2):
        rest = await fired(trigger(port, topic), 3 - seen, position=events[seen - 1].position)
        assert sorted(offsets([*events[:seen], *rest])) == ["0/0", "0/1", "1/0"]


async def test_new_messages_are_those_since_the_wait_began(port, topic, producer):
    before = int((datetime.now(UTC) - timedelta(hours=1)).timestamp() * 1000)
    await send(producer, topic, b"old", timestamp_ms=before)
    later = JumpingClock(datetime.now(UTC) + timedelta(hours=1))
    async with beside(trigger(port, topic), clock=later) as ctx:
        await ctx.until("kafka.reading")
        await send(producer, topic, b"late", timestamp_ms=before)
    assert offsets(ctx.events) == ["0/1"]


async def test_of_a_restart_in_front_of_the_first_event_nothing_is_lost(port, topic, producer):
    async with beside(trigger(port, topic), clock=now()) as ctx:
        await ctx.until("kafka.reading")
        ctx.stop()
    await send(producer, topic, b"1", b"2")
    assert offsets(await fired(trigger(port, topic), clock=ctx.clock)) == ["0/0"]


async def test_partitions_that_are_added_are_read_from_their_begin(
    port, topic, producer, monkeypatch
):
    monkeypatch.setattr(kafka_reader, "_METADATA_MILLISECONDS", 100)
    monkeypatch.setattr(kafka_reader, "_IDLE_SECONDS", 0.2)
    name = f"{topic}-grows"
    await make_topic(port, name, 1)
    await send(producer, name, b"1")
    (event,) = await fired(trigger(port, name, deliver="all"))
    # As a client sees a topic of two partitions whose second it has never seen.
    await make_topic(port, f"{name}-2", 2)
    await send(producer, f"{name}-2", b"1")
    await send(producer, f"{name}-2", b"2", partition=1)
    (more,) = await fired(trigger(port, f"{name}-2"), position=event.position)
    assert offsets([more]) == ["1/0"]


async def test_filters_see_key_value_and_headers(port, topic, producer):
    await send(producer, topic, b'{"n": 1}', b"no json", b'{"n": 2}')
    await send(producer, topic, b'{"n": 3}', key=b"k", headers=[("day", b"mon")])
    where = 'value.n > 1 && (key == null || headers.day == "mon")'
    events = await fired(trigger(port, topic, deliver="all", where=where), 2)
    assert offsets(events) == ["0/2", "0/3"]


async def test_values_of_any_form(port, topic, producer):
    await send(producer, topic, b"text", b"\xff\x00", None, b"42", key=b"k")
    events = await fired(trigger(port, topic, deliver="all"), 4)
    assert [e.payload["value"] for e in events] == ["text", {"base64": "/wA="}, None, 42]
    events = await fired(trigger(port, topic, deliver="all", value="bytes"), 4)
    assert [e.payload["value"] for e in events] == ["dGV4dA==", "/wA=", None, "NDI="]


async def test_what_is_not_json_is_rejected_fails_with_its_name_or_is_skipped(
    port, topic, producer
):
    await send(producer, topic, b"1", b"{", b"3")
    events = await fired(trigger(port, topic, deliver="all", value="json"), 3)
    assert [each.rejected for each in events] == [
        None,
        f"Kafka message {topic}/0/1: its value is not JSON",
        None,
    ]
    rejected = events[1]
    place = {name: rejected.payload[name] for name in ("topic", "partition", "offset", "value")}
    assert place == {"topic": topic, "partition": 0, "offset": 1, "value": "{"}
    fails = trigger(port, topic, value="json", invalid="fail")
    with pytest.raises(TriggerError, match=f'message {topic}/0/1: its value is not JSON; .*"skip"'):
        await fired(fails, position=events[0].position)
    (after,) = await fired(fails, position=rejected.position)
    assert offsets([after]) == ["0/2"]
    skips = trigger(port, topic, deliver="all", value="json", invalid="skip")
    async with beside(skips, 2) as ctx:
        pass
    assert offsets(ctx.events) == ["0/0", "0/2"]
    line = {"message": f"{topic}/0/1", "error": "its value is not JSON"}
    assert ("kafka.message_skipped", line) in ctx.logged


async def test_a_batch_is_of_one_partition_and_ends_where_the_events_partition_changes(
    port, topic, producer
):
    await send(producer, topic, b"1", b"2", b"3", key=b"a")
    await send(producer, topic, b"4", b"5", key=b"b")
    wait = timedelta(seconds=0.2)
    batches = trigger(port, topic, deliver="all", partition="key", batch=2, linger=wait)
    events = await fired(batches, 3)
    assert offsets(events) == ["0/0-1", "0/2-2", "0/3-4"]
    assert [event.partition for event in events] == ["a", "a", "b"]
    assert [each["value"] for each in events[2].payload["messages"]] == [4, 5]
    assert set(events[2].payload) == {"topic", "partition", "messages"}
    restarted = await fired(batches, 2, position=events[0].position)
    assert offsets(restarted) == ["0/2-2", "0/3-4"]
    await send(producer, topic, b"6", partition=1, key=b"b")
    await send(producer, topic, b"7", key=b"b")
    both = await fired(batches, 2, position=events[2].position)
    assert sorted(offsets(both)) == ["0/5-5", "1/0-0"]


async def test_a_batch_in_front_of_an_invalid_message_is_delivered(port, topic, producer):
    await send(producer, topic, b"1", b"2", b"{")
    batches = trigger(port, topic, deliver="all", value="json", batch=10, invalid="fail")
    (event,) = await fired(batches)
    assert offsets([event]) == ["0/0-1"]
    with pytest.raises(TriggerError, match=f"{topic}/0/2"):
        await fired(batches, position=event.position)


async def test_a_batch_waits_for_more(port, topic, producer):
    batches = trigger(port, topic, batch=3, linger=timedelta(seconds=30))
    async with beside(batches) as ctx:
        await ctx.until("kafka.reading")
        for value in (b"1", b"2", b"3"):
            await send(producer, topic, value)
    assert offsets(ctx.events) == ["0/0-2"]


@pytest.mark.soak  # Tansu takes five seconds for each member that joins
async def test_a_group_keeps_its_place_when_events_are_stored(port, topic, producer):
    await send(producer, topic, b"1", b"2", b"3")
    grouped = trigger(port, topic, group="g", deliver="all")
    assert offsets(await fired(grouped)) == ["0/0"]
    # One that dies with an event in hand leaves it to the next one.
    async with beside(grouped) as ctx:
        pass
    assert offsets(ctx.events) == ["0/1"]
    # As of a commit that was lost: what is stored here is not read again.
    (event,) = await fired(grouped, position={"offsets": {"0": 2}})
    assert offsets([event]) == ["0/2"]


@pytest.mark.soak
async def test_members_of_a_group_share_the_partitions(port, topic, producer):
    grouped = trigger(port, topic, group="g", deliver="all")
    async with beside(grouped, 3) as one:
        await one.until("kafka.reading")
        await send(producer, topic, b"1", partition=1)
        await one.until("fired")
        async with beside(grouped, 1) as other:
            await other.until("kafka.reading")
            await send(producer, topic, b"2")
            await send(producer, topic, b"3", partition=1)
            await asyncio.wait(
                [
                    asyncio.ensure_future(one.until("fired", 2)),
                    asyncio.ensure_future(other.until("fired")),
                ]
            )
        one.stop()
    assert sorted(offsets([*one.events, *other.events])) == ["0/0", "1/0", "1/1"]


async def test_a_topic_that_was_made_anew_is_read_from_its_begin_under_other_ids(
    port, topic, producer
):
    await send(producer, topic, b"1", b"2")
    here = {"offsets": {"0": 7, "1": 0}}
    events = await fired(trigger(port, topic), 2, position=here)
    assert [each.id for each in events] == [f"{topic}/0/0@1", f"{topic}/0/1@1"]
    assert events[0].position == {"offsets": {"0": 1, "1": 0}, "generation": 1}
    with pytest.raises(TriggerError, match=r"ends at 2, before 7.*lost=\"continue\""):
        await fired(trigger(port, topic, lost="fail"), position=here)


async def test_it_reads_on_after_the_broker_was_away(tmp_path, monkeypatch):
    monkeypatch.setattr(kafka_reader, "_IDLE_SECONDS", 0.1)
    monkeypatch.setattr(kafka_reader, "_REQUEST_MILLISECONDS", 300)
    async with fronted(tmp_path) as front:
        await make_topic(front.port, "orders")
        async with beside(trigger(front.port, "orders"), 2) as ctx:
            await ctx.until("kafka.reading")
            async with producing(front.port) as producer:
                await send(producer, "orders", b"1")
            await ctx.until("fired")
            front.cut()
            await ctx.until("trigger.server_away", 2)
            front.up = True
            await ctx.until("kafka.reading", 2)
            async with producing(front.port) as producer:
                await send(producer, "orders", b"2")
    assert offsets(ctx.events) == ["0/0", "0/1"]
    assert ctx.troubles[-1] is None
    assert any(each and each.startswith("kafka:") for each in ctx.troubles)


async def test_no_broker_is_a_trouble_that_may_pass(tmp_path):
    async with beside(trigger(kafka_broker.free_port(), "orders")) as ctx:
        await ctx.until("trigger.server_away", 2)
        ctx.stop()
    assert "Connect call failed" in ctx.troubles[0]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"url": "http://x"}, "url must be kafka"),
        ({"topic": ""}, "topic is empty"),
        ({"group": ""}, "group is empty"),
        ({"deliver": "some"}, "deliver is one of all, new"),
        ({"value": "avro"}, "value is one of auto, json"),
        ({"batch": 0}, "batch is from 1"),
        ({"linger": timedelta(hours=1)}, "linger is from 0"),
        ({"where": "value.n >"}, "CEL"),
    ],
)
def test_impossible_fields_are_refused(fields, text):
    with pytest.raises(DefinitionError, match=text):
        KafkaMessage(**{"url": "kafka://x:9092", "topic": "t", **fields})


def test_its_fields_travel():
    made = KafkaMessage(url="connection:events", topic="t", group="g", linger=timedelta(seconds=1))
    assert round_trip(made) == made
