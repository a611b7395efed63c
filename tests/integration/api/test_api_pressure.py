"""Back-pressure: senders are asked to come later, by what really waits; everything else works."""

import anyio
import pytest

from pubsubflow.api import ApiSettings
from pubsubflow.api.server.backpressure import Pressure
from pubsubflow.bus import STREAM_IN, Puller
from pubsubflow.model.wire.backlog import Backlog
from pubsubflow.model.wire.subjects import Subjects

pytestmark = pytest.mark.anyio

EVENTS = "/api/v1/datasets/events"
A = {"dataset": "s3://lake/a"}
INTAKES = (EVENTS, "/api/v1/cloudevents", "/hooks/any")


async def refused(rig, path):
    """Post; return the problem and when to come again."""
    async with rig.session.post(rig.url + path, json=A) as response:
        assert response.status == 429, await response.text()
        assert response.content_type == "application/problem+json"
        return (await response.json())["detail"], int(response.headers["Retry-After"])


async def test_while_too_many_events_wait_senders_are_asked_to_come_later(limited, stuck):
    async with limited(max_pending_events=10) as rig, anyio.create_task_group() as group:
        async with stuck() as pending:
            group.start_soon(rig.post, EVENTS, [A] * 10)
            await pending(10)
            ready = await rig.until("/readyz", lambda found: not found["intake"]["accepting"])
            assert ready["ready"]
            assert ready["intake"]["pending"] >= 10
            for path in INTAKES:
                detail, seconds = await refused(rig, path)
                assert "10 events wait to be folded" in detail
                assert 1 <= seconds <= 60
            await rig.get("/healthz")
            assert (await rig.get(EVENTS))["items"] == []
        await rig.until("/readyz", lambda found: found["intake"]["accepting"])
        await rig.post(EVENTS, A)
        assert len((await rig.get(EVENTS))["items"]) == 11


async def test_while_the_disk_is_short_events_are_refused(limited, tmp_path):
    async with limited({"disk": tmp_path}, min_free_bytes=1 << 60) as rig:
        for path in INTAKES:
            detail, seconds = await refused(rig, path)
            assert "disk is short" in detail
            assert seconds > 1
        assert (await rig.get("/readyz"))["intake"]["free_bytes"] > 0
        await rig.get(EVENTS)


async def test_what_waited_for_postgres_is_not_held_against_those_who_come_after(bus):
    waits = iter([(20.0, True), (20.0, False), (20.0, False)])

    def backlog():
        seconds, away = next(waits)
        return Backlog(pending=1, oldest_seconds=seconds, away=away)

    pressure = Pressure(ApiSettings(max_lag_seconds=10), backlog, bus)
    found = []
    for _ in range(3):
        await pressure.look()
        found.append(pressure.refusal is not None)
    assert found == [False, False, True]


async def test_what_waits_on_the_bus_counts(bus):
    for number in range(5):
        await bus.publish_durable(Subjects.inbound(Subjects.EVENT, 0), b"%d" % number)
    pressure = Pressure(ApiSettings(max_pending_events=5), Backlog, bus)
    await pressure.look()
    assert pressure.view().pending == 5
    assert pressure.refusal is not None


async def test_lag_is_what_nobody_has_finished_and_the_age_of_what_nobody_has_got(bus):
    assert (await bus.measure_lag("NONE", "managers")).pending == 0
    for number in range(5):
        await bus.publish_durable(Subjects.inbound(Subjects.EVENT, 0), b"%d" % number)
    got = []
    enough = anyio.Event()

    def deliver(delivery):
        got.append(delivery)
        enough.set()

    puller = Puller(
        bus, stream=STREAM_IN, durable="managers", filter_subject="psf.in.>", deliver=deliver
    )
    puller.credit(1)
    stopping = anyio.Event()
    async with anyio.create_task_group() as group:
        await group.start(puller.run, stopping)
        await enough.wait()
        waiting = await bus.measure_lag(STREAM_IN, "managers")
        assert (waiting.pending, waiting.finished) == (5, 0)
        assert 0 < waiting.oldest_seconds < 600
        got[0].ack()
        await bus.flush()
        assert (await bus.measure_lag(STREAM_IN, "managers")).finished == 1
        puller.credit(4)
        with anyio.fail_after(60):
            while len(got) < 5:
                enough = anyio.Event()
                await enough.wait()
        everything = await bus.measure_lag(STREAM_IN, "managers")
        assert (everything.pending, everything.oldest_seconds) == (4, 0)
        stopping.set()
