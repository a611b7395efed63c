"""CloudEvents on the bus: in by the NATS binding, and out with what has happened."""

import base64
import json

import anyio
import msgspec
import pytest
from cloudevents.core.bindings.http import (
    HTTPMessage,
    from_binary_event,
    to_binary_event,
    to_structured_event,
)
from cloudevents.core.v1.event import CloudEvent

from pubsubflow.bus import STREAM_EVT, PullConsumer
from pubsubflow.model.wire.commands import RedriveDeadLetter, StartRun
from pubsubflow.model.wire.messages import PublishedEvent, encode
from support.specs import dag, task, uri

pytestmark = pytest.mark.anyio

SUBJECT = "psf.in.event.orders"
HERE = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "paid", "subject": uri("x")}
FORMS = pytest.mark.parametrize("form", [to_binary_event, to_structured_event])


async def send(harness, data, headers=None):
    """Publish and wait until the manager has handled it."""
    handled = harness.managers[0].handled
    harness.worker_bus.publish(SUBJECT, data, headers)

    async def done():
        return harness.managers[0].handled > handled

    await harness.until(done)


def cloud_event(data, **more):
    return CloudEvent({**HERE, "datacontenttype": "application/json", **more}, data)


@FORMS
async def test_an_event_of_the_sdk_is_recorded_and_starts_its_run(harness, form):
    await harness.load(dag("d", task("a"), on="x"))
    message = form(cloud_event({"name": "x1"}, partitionkey="żółw 1"))
    for _ in range(2):
        await send(harness, message.body, dict(message.headers))
    order = await harness.order()
    assert order.events == ["x1"]
    (row,) = await harness.rows("SELECT partition, source, extra FROM event")
    assert row[:2] == ("żółw 1", "bus")
    assert row[2]["cloudevent"]["source"] == "/shop"
    assert await harness.rows("SELECT FROM dead_letter") == []


async def test_without_headers_a_message_is_structured(harness):
    await send(harness, json.dumps({**HERE, "data": {"name": "x1"}}).encode())
    assert await harness.rows("SELECT extra->>'name' FROM event") == [("x1",)]


async def test_what_a_task_publishes_is_not_a_cloud_event(harness):
    await harness.load(dag("d", task("a")))
    await harness.call(StartRun("d"))
    order = await harness.order()
    event = PublishedEvent(order.message.run, 0, -1, "1.0.-1.0", uri("y"), {"name": "y1"})
    await send(harness, encode(event), {"Nats-Msg-Id": "m", "traceparent": "00-1-2-01"})
    assert await harness.rows("SELECT source FROM event") == [("task",)]


BINARY = {f"ce-{name}": value for name, value in HERE.items()}
LARGE = json.dumps({"text": "x" * 300_000}).encode()
POISON = [
    (b"{", None, "not a CloudEvent in JSON"),
    (b'{"id": "\xff"}', None, "not a CloudEvent in JSON"),
    (b"", None, "not a CloudEvent in JSON"),
    (b"[" * 100_000, None, "not a CloudEvent in JSON"),
    (json.dumps({**HERE, "subject": None}).encode(), None, "must name the dataset"),
    (json.dumps({**HERE, "subject": "no uri"}).encode(), None, "no uri"),
    (json.dumps({**HERE, "specversion": "0.3"}).encode(), None, "send 1.0"),
    (json.dumps({**HERE, "time": "noon"}).encode(), None, "attribute time is invalid"),
    (json.dumps({"specversion": "1.0"}).encode(), None, "attribute id is missing"),
    (json.dumps({**HERE, "data": {"n": 2**70}}).encode(), None, "64 bits"),
    (LARGE, BINARY, "larger than"),
    (b"\xff", {**BINARY, "ce-datacontenttype": "text/plain"}, "is not text"),
    (b"{", BINARY, "data is not JSON"),
    (b"{}", {**BINARY, "ce-subject": "%ff"}, "ce-subject is not UTF-8"),
    (b"[]", {"Content-Type": "application/cloudevents-batch+json"}, "no batches"),
    (b"{}", {"Content-Type": "application/cloudevents+avro"}, "not understood"),
]


async def test_poison_becomes_a_dead_letter_with_its_reason_and_is_gone(harness):
    for data, headers, _ in POISON:
        await send(harness, data, headers)
    dead_letters = await harness.rows("SELECT kind, subject, reason FROM dead_letter ORDER BY id")
    assert {each[:2] for each in dead_letters} == {("cloudevent", SUBJECT)}
    assert len(dead_letters) == len(POISON)
    for (_, _, said), (_, _, reason) in zip(POISON, dead_letters, strict=True):
        assert said in reason
    assert (await harness.bus.read_consumer_stats("PSF_IN", "managers")).pending == 0
    assert await harness.rows("SELECT FROM event") == []


async def test_a_dead_letter_holds_the_whole_event_and_can_be_mended(harness):
    await send(harness, b'{"name": "x1"}', {**BINARY, "ce-subject": "orders", "ce-extra": "a%20b"})
    await send(harness, b"\xff\xfe", {**BINARY, "ce-datacontenttype": "image/png"})
    (first, payload), (_, image) = await harness.rows(
        "SELECT id, payload FROM dead_letter ORDER BY id"
    )
    held = json.loads(payload)
    assert held == {**HERE, "subject": "orders", "extra": "a b", "data": {"name": "x1"}}
    assert base64.b64decode(json.loads(image)["data_base64"]) == b"\xff\xfe"
    mended = json.dumps({**held, "subject": uri("x")}).encode()
    handled = harness.managers[0].handled
    await harness.call(RedriveDeadLetter(first, mended))

    async def done():
        return harness.managers[0].handled > handled

    await harness.until(done)
    assert await harness.rows("SELECT extra->>'name' FROM event") == [("x1",)]


async def test_what_happened_is_published_as_cloud_events(harness):
    heard = []

    def take(delivery):
        heard.append((delivery.subject, delivery.headers, delivery.data))
        delivery.ack()
        harness.signal.notify()

    await harness.load(dag("żółw", task("a", emits=["y"])))
    puller = PullConsumer(
        harness.worker_bus, stream=STREAM_EVT, durable="t", filter_subject="psf.evt.>", deliver=take
    )
    puller.credit(100)
    stopping = anyio.Event()
    async with anyio.create_task_group() as group:
        await group.start(puller.run, stopping)
        run_id = await harness.call(StartRun("żółw"))
        await harness.finish("a")

        async def all_received():
            return len(heard) == 3

        await harness.until(all_received)
        stopping.set()
    published = [
        (subject, from_binary_event(HTTPMessage(headers, data)), headers)
        for subject, headers, data in heard
    ]
    stored_as = [subject for subject, _, _ in published]
    assert stored_as[0] == stored_as[1]
    assert [subject.split(".")[:3] for subject in stored_as[1:]] == [
        ["psf", "evt", "run"],
        ["psf", "evt", "dataset"],
    ]
    began, ended, emitted = (event for _, event, _ in published)
    assert [each.get_extension("runid") for each in (began, ended)] == [str(run_id)] * 2
    assert began.get_type() == "org.pubsubflow.run.running"
    assert ended.get_type() == "org.pubsubflow.run.success"
    assert began.get_id() != ended.get_id()
    assert began.get_subject() == "żółw"
    assert msgspec.json.encode(began.get_data())
    assert emitted.get_type() == "org.pubsubflow.dataset.updated"
    assert emitted.get_subject() == uri("y")
    assert emitted.get_data() == {}
    assert emitted.get_attributes()["runid"] == run_id
    assert (emitted.get_attributes()["dagid"], emitted.get_attributes()["taskid"]) == ("żółw", "a")
    assert published[2][2]["Nats-Msg-Id"] == emitted.get_id()
    assert await harness.rows("SELECT event_id::text FROM event") == [(emitted.get_id(),)]
