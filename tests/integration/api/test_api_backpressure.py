"""Back-pressure: senders are asked to come later, by what really waits; everything else works."""

import anyio
import pytest

from pubsubflow.api import ApiSettings
from pubsubflow.api.server.backpressure import Backpressure
from pubsubflow.bus import STREAM_IN, PullConsumer
from pubsubflow.model.wire.backlog import QueueBacklog
from pubsubflow.model.wire.subjects import Subjects

pytestmark = pytest.mark.anyio

EVENTS = "/api/v1/datasets/events"
A = {"dataset": "s3://lake/a"}
INTAKES = (EVENTS, "/api/v1/cloudevents", "/hooks/any")


async def refused(harness, path):
    """Post; return the problem and when to come again."""
    async with harness.session.post(harness.url + path, json=A) as response:
        assert response.status == 429, await response.text()
        assert response.content_type == "application/problem+json"
        return (await response.json())["detail"], int(response.headers["Retry-After"])


async def test_while_too_many_events_wait_senders_get_retry_after(limited, blocked_store):
    async with limited(max_pending_events=10) as harness, anyio.create_task_group() as group:
        async with blocked_store() as pending:
            group.start_soon(harness.post, EVENTS, [A] * 10)
            await pending(10)
            ready = await harness.get_until(
                "/readyz", lambda found: not found["intake"]["accepting"]
            )
            assert ready["ready"]
            assert ready["intake"]["pending"] >= 10
            for path in INTAKES:
                detail, seconds = await refused(harness, path)
                assert "10 events wait to be processed" in detail
                assert 1 <= seconds <= 60
            await harness.get("/healthz")
            assert (await harness.get(EVENTS))["items"] == []
        await harness.get_until("/readyz", lambda found: found["intake"]["accepting"])
        await harness.post(EVENTS, A)
        assert len((await harness.get(EVENTS))["items"]) == 11


async def test_while_the_disk_is_short_events_are_refused(limited, tmp_path):
    async with limited({"disk": tmp_path}, min_free_bytes=1 << 60) as harness:
        for path in INTAKES:
            detail, seconds = await refused(harness, path)
            assert "disk is nearly full" in detail
            assert seconds > 1
        assert (await harness.get("/readyz"))["intake"]["free_bytes"] > 0
        await harness.get(EVENTS)


async def test_what_waited_for_postgres_is_not_held_against_those_who_come_after(bus):
    waits = iter([(20.0, True), (20.0, False), (20.0, False)])

    def backlog():
        seconds, away = next(waits)
        return QueueBacklog(pending=1, oldest_seconds=seconds, away=away)

    pressure = Backpressure(ApiSettings(max_lag_seconds=10), backlog, bus)
    found = []
    for _ in range(3):
        await pressure.measure()
        found.append(pressure.refusal is not None)
    assert found == [False, False, True]


async def test_what_waits_on_the_bus_counts(bus):
    for number in range(5):
        await bus.publish_durable(Subjects.inbound(Subjects.EVENT, 0), b"%d" % number)
    pressure = Backpressure(ApiSettings(max_pending_events=5), QueueBacklog, bus)
    await pressure.measure()
    assert pressure.view().pending == 5
    assert pressure.refusal is not None


async def test_lag_is_the_number_of_unfinished_messages_and_the_age_of_the_oldest_undelivered(bus):
    assert (await bus.read_consumer_stats("NONE", "managers")).pending == 0
    for number in range(5):
        await bus.publish_durable(Subjects.inbound(Subjects.EVENT, 0), b"%d" % number)
    got = []
    enough = anyio.Event()

    def deliver(delivery):
        got.append(delivery)
        enough.set()

    puller = PullConsumer(
        bus, stream=STREAM_IN, durable="managers", filter_subject="psf.in.>", deliver=deliver
    )
    puller.credit(1)
    stopping = anyio.Event()
    async with anyio.create_task_group() as group:
        await group.start(puller.run, stopping)
        await enough.wait()
        waiting = await bus.read_consumer_stats(STREAM_IN, "managers")
        assert (waiting.pending, waiting.acknowledged) == (5, 0)
        assert 0 < waiting.oldest_seconds < 600
        got[0].ack()
        await bus.flush()
        assert (await bus.read_consumer_stats(STREAM_IN, "managers")).acknowledged == 1
        puller.credit(4)
        with anyio.fail_after(60):
            while len(got) < 5:
                enough = anyio.Event()
                await enough.wait()
        everything = await bus.read_consumer_stats(STREAM_IN, "managers")
        assert (everything.pending, everything.oldest_seconds) == (4, 0)
        stopping.set()
