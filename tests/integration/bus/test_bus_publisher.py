"""The durable publisher: every message is resent until JetStream has it."""

import base64
import json

import anyio
import pytest

from pubsubflow.bus import STREAM_IN, STREAM_TASK, Bus, PullConsumer
from pubsubflow.bus.publisher import DurablePublisher
from pubsubflow.errors import MessageRefused

pytestmark = pytest.mark.anyio


async def stored(bus, stream=STREAM_IN):
    """List the stored payloads in stream order, decoded."""
    info = json.loads(await bus.request(f"$JS.API.STREAM.INFO.{stream}", b"", 5))
    state = info["state"]
    payloads = []
    for sequence in range(state["first_seq"], state["last_seq"] + 1):
        request = json.dumps({"seq": sequence}).encode()
        answer = await bus.request(f"$JS.API.STREAM.MSG.GET.{stream}", request, 5)
        payloads.append(base64.b64decode(json.loads(answer)["message"].get("data", "")))
    return payloads


async def test_returns_when_stored_and_the_same_id_is_stored_once(bus):
    for _ in range(3):
        assert await bus.publish_durable("psf.in.event.0", b"a", message_id="one")
    assert len(await stored(bus)) == 1
    assert bus.outstanding == 0


async def test_nowait_calls_back_and_keeps_the_order(bus, collector):
    done = collector()
    for number in range(500):
        bus.publish_durable_nowait(
            "psf.in.result.0", b"%04d" % number, message_id=f"m{number}", on_done=done
        )
    assert bus.outstanding == 500
    await done.wait_for(500)
    assert await stored(bus) == [b"%04d" % number for number in range(500)]


async def test_an_occupied_subject_counts_as_done(bus, collector):
    done = collector()
    for number in range(2):
        bus.publish_durable_nowait("psf.task.q.r.t.1", b"", message_id=f"m{number}", on_done=done)
    await done.wait_for(2)
    assert len(await stored(bus, STREAM_TASK)) == 1


async def test_server_killed_mid_flight_stores_each_exactly_once(server, bus, collector):
    total = 3_000
    done = collector()
    for number in range(total):
        bus.publish_durable_nowait(
            "psf.in.result.0", b"%d" % number, message_id=f"m{number}", on_done=done
        )
        if number % 1_000 == 500:
            await done.wait_for(len(done.items) + 1)
            server.kill()
            server.start()
    await done.wait_for(total, 20)
    assert sorted(map(int, await stored(bus))) == list(range(total))
    assert bus.outstanding == 0


async def test_awaited_publishing_survives_a_killed_server(server, bus):
    server.kill()
    async with anyio.create_task_group() as group:
        group.start_soon(bus.publish_durable, "psf.in.event.0", b"7")
        while bus.connected or not bus.outstanding:
            await anyio.lowlevel.checkpoint()
        server.start()
    assert await stored(bus) == [b"7"]


async def test_without_a_stream_it_waits_until_there_is_one(server):
    async with Bus.connect(server.settings) as bus, anyio.create_task_group() as group:
        group.start_soon(bus.publish_durable, "psf.in.event.0", b"7")
        while not bus.outstanding:
            await anyio.lowlevel.checkpoint()
        await bus.flush()
        await bus.ensure_streams()


async def test_too_large_is_refused_at_once(bus):
    with pytest.raises(MessageRefused, match="larger than the limit of NATS"):
        await bus.publish_durable("psf.in.event.0", bytes(bus.max_payload + 1))
    assert bus.outstanding == 0


async def test_definitive_refusals_are_raised_and_called_back(bus, collector):
    info = json.loads(await bus.request("$JS.API.STREAM.INFO.PSF_IN", b"", 5))
    config = info["config"] | {"max_msg_size": 10}
    await bus.request("$JS.API.STREAM.UPDATE.PSF_IN", json.dumps(config).encode(), 5)
    with pytest.raises(MessageRefused, match="message size exceeds"):
        await bus.publish_durable("psf.in.event.0", bytes(11))
    refused, done = collector(), collector()
    bus.publish_durable_nowait(
        "psf.in.event.0", bytes(11), message_id="a", on_done=done, on_refused=refused
    )
    assert isinstance((await refused.wait_for(1))[0], MessageRefused)
    assert done.items == []
    assert bus.outstanding == 0


async def test_a_full_stream_is_no_definitive_refusal(bus):
    info = json.loads(await bus.request("$JS.API.STREAM.INFO.PSF_IN", b"", 5))
    full = info["config"] | {"max_msgs": 1, "discard": "new"}
    await bus.request("$JS.API.STREAM.UPDATE.PSF_IN", json.dumps(full).encode(), 5)
    await bus.publish_durable("psf.in.event.0", b"1")
    async with anyio.create_task_group() as group:
        group.start_soon(bus.publish_durable, "psf.in.event.0", b"2")
        while not bus.outstanding:
            await anyio.lowlevel.checkpoint()
        await bus.flush()
        assert bus.outstanding == 1
        roomy = info["config"]
        await bus.request("$JS.API.STREAM.UPDATE.PSF_IN", json.dumps(roomy).encode(), 5)
    assert await stored(bus) == [b"1", b"2"]


async def test_a_cancelled_publisher_leaves_nothing_outstanding(server, bus):
    server.kill()
    with anyio.move_on_after(0.05):
        await bus.publish_durable("psf.in.event.0", b"")
    assert bus.outstanding == 0


async def test_what_is_kept_says_that_it_is_sent_again(bus, group, collector):
    publisher, got = DurablePublisher(bus.client), collector(lambda delivery: delivery.ack())
    publisher.open()
    publisher.keep("psf.task.q.sync.1", b"at once")
    while publisher.outstanding:
        await anyio.lowlevel.checkpoint()
    await bus.request("$JS.API.STREAM.DELETE.PSF_TASK", b"", 5)
    publisher.keep("psf.task.q.sync.2", b"later")
    await bus.flush()
    assert publisher.outstanding == 1
    await bus.ensure_streams()
    consumer = PullConsumer(
        bus, stream=STREAM_TASK, durable="q", filter_subject="psf.task.>", deliver=got
    )
    consumer.credit(10)
    await group.start(consumer.run, anyio.Event())
    publisher.resend_stream(STREAM_TASK)
    (delivery,) = await got.wait_for(1, 60)
    assert (delivery.data, delivery.again) == (b"later", True)
    publisher.close()


async def test_more_than_there_is_room_for_is_not_kept(bus, monkeypatch):
    monkeypatch.setattr("pubsubflow.bus.publisher._KEPT_BYTES", 100)
    publisher = DurablePublisher(bus.client)
    for number in range(3):
        publisher.keep(f"psf.task.q.sync.{number}", bytes(40))
    await bus.flush()
    assert publisher.outstanding == 2
    assert len(await stored(bus, STREAM_TASK)) == 3


async def test_malformed_ids_are_refused(bus):
    for bad in ("a\r\nb", "ż"):
        with pytest.raises(MessageRefused):
            await bus.publish_durable("psf.in.event.0", b"", message_id=bad)


async def test_what_stays_unanswered_is_sent_again_with_its_id(bus, collector):
    def answer_the_third(message):
        if len(got.items) == 3:
            message.respond(b'{"stream":"S","seq":1}')

    got = collector(answer_the_third)
    bus._publisher._answer_seconds = 0.05
    async with await bus.subscribe("psf.ctl.deaf", got):
        assert await bus.publish_durable("psf.ctl.deaf", b"", message_id="one")
    assert [message.headers["Nats-Msg-Id"] for message in got.items] == ["one"] * 3


async def test_one_whose_first_sending_is_in_process_is_sent_again(bus, collector):
    """As at a leader that the network has cut off: it never stores the first one."""

    def answer(message):
        message.respond(conflict if len(got.items) == 1 else b'{"stream":"S","seq":1}')

    conflict = json.dumps(
        {"error": {"code": 409, "err_code": 10158, "description": "duplicate message id"}}
    ).encode()
    got = collector(answer)
    async with await bus.subscribe("psf.ctl.cut", got):
        assert await bus.publish_durable("psf.ctl.cut", b"", message_id="one")
    assert len(got.items) == 2
