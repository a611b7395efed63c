"""Elections: whoever waits for a leader learns of it at once."""

import anyio
import pytest

from pubsubflow.bus import STREAM_IN, PullConsumer

pytestmark = pytest.mark.anyio
COUNT = 2_000
ELECTED = "$JS.EVENT.ADVISORY.CONSUMER.LEADER_ELECTED.PSF_IN.managers"


async def test_a_consumer_pulls_anew_and_no_message_is_lost_on_its_way(bus, group, collector):
    bus.elections.open()
    got = collector(lambda delivery: delivery.ack())
    consumer = PullConsumer(
        bus, stream=STREAM_IN, durable="managers", filter_subject="psf.in.>", deliver=got
    )
    consumer.credit(10 * COUNT)
    await group.start(consumer.run, anyio.Event())
    for number in range(COUNT):
        bus.publish("psf.in.event.0", b"%d" % number)
        if number % 100 == 0:
            bus.publish(ELECTED, b"")
            await bus.flush()
    with anyio.fail_after(60):
        while len({delivery.data for delivery in got.items}) < COUNT:
            await got.wait_for(len(got.items) + 1, 60)


async def test_only_its_own_elections_concern_a_consumer(bus, collector):
    bus.elections.open()
    mine = collector()
    stop = bus.elections.on_consumer(STREAM_IN, "managers", mine)
    bus.publish("$JS.EVENT.ADVISORY.CONSUMER.LEADER_ELECTED.PSF_IN.others", b"")
    bus.publish(ELECTED, b"")
    await mine.wait_for(1, 60)
    stop()
    assert len(mine.items) == 1
