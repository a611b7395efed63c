"""Messages that only a newer version can read are left to a peer of that version."""

import anyio
import pytest
import structlog

from pubsubflow.bus import STREAM_IN, PullConsumer, left_to_newer
from pubsubflow.bus.protocol import encode_headers, encode_pub
from pubsubflow.model.wire.protocol import PROTOCOL, PROTOCOL_HEADER, needed_protocol

pytestmark = pytest.mark.anyio
NEWER = {PROTOCOL_HEADER: str(PROTOCOL + 1)}


def ack(delivery):
    delivery.ack()


@pytest.mark.parametrize(
    ("block", "needed"),
    [
        (b"", 1),
        (b"NATS/1.0\r\nPsf-Protocol: 7\r\n\r\n", 7),
        (b"NATS/1.0\r\nNats-Msg-Id: a\r\nPsf-Protocol: 2\r\n\r\n", 2),
        (b"NATS/1.0\r\nNats-Msg-Id: Psf-Protocol: 3\r\n\r\n", 1),
        (b"NATS/1.0\r\nPsf-Protocol: many\r\n\r\n", 1),
    ],
)
def test_a_message_says_which_protocol_it_needs(block, needed):
    assert needed_protocol(block) == needed


async def test_a_message_is_left_until_a_newer_peer_takes_it(
    bus, group, collector, monkeypatch, server
):
    monkeypatch.setattr(left_to_newer, "_FIRST_SECONDS", 0.01)
    got, stopping = collector(ack), anyio.Event()
    consumer = PullConsumer(
        bus,
        stream=STREAM_IN,
        durable="managers",
        filter_subject="psf.in.>",
        deliver=got,
        open_subject=b"psf.in.event",
    )
    await group.start(consumer.run, stopping)
    consumer.credit(3)
    with structlog.testing.capture_logs() as logs:
        for _ in range(5):  # more than the credit: what is left uses none up
            bus.publish("psf.in.result.0", b"newer", NEWER)
        bus.publish("psf.in.result.0", b"known", {PROTOCOL_HEADER: str(PROTOCOL)})
        # Where outsiders publish, any header is theirs.
        bus.publish("psf.in.event.0", b"outside", NEWER)
        await got.wait_for(2)
    assert [each.data for each in got.items] == [b"known", b"outside"]
    said = [each for each in logs if each["event"] == "bus.left_to_newer"]
    assert [(each["what"], each["subject"]) for each in said] == [("message", "psf.in.result.0")]
    assert f"protocol {PROTOCOL + 1}" in said[0]["reason"]
    assert len(bus.left_to_newer) >= 5
    # From here on it is a daemon of that version.
    monkeypatch.setattr(left_to_newer, "PROTOCOL", PROTOCOL + 1)
    consumer.credit(10)
    await got.wait_for(7)
    assert [each.data for each in got.items[2:]] == [b"newer"] * 5


async def test_a_notice_is_dropped_and_a_request_is_left_to_another_daemon(bus, collector):
    got = collector()
    await bus.subscribe("psf.ctl.test", got)
    await bus.subscribe("psf.req.test", lambda message: message.respond(b"reply"), queue="q")
    bus.publish("psf.ctl.test", b"newer", NEWER)
    bus.publish("psf.ctl.test", b"known")
    await got.wait_for(1)
    assert [each.data for each in got.items] == [b"known"]
    replies = collector()
    await bus.subscribe("reply", replies)
    for headers in (NEWER, {}):
        block = encode_headers(headers)
        bus.client.send(encode_pub("psf.req.test", "reply", b"request", block))
    await replies.wait_for(1)
    await bus.flush()
    assert len(replies.items) == 1
    left = {what: count for (what,), count in bus.left_to_newer.counter.read() if count}
    assert left == {"notice": 1, "request": 1}
