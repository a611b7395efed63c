"""The configurations of the streams."""

import json
from uuid import uuid4

import msgspec
import pytest

from pubsubflow.bus import STREAM_EVT, STREAM_IN, STREAM_TASK, Bus
from pubsubflow.bus.streams import find_next
from pubsubflow.errors import BusUnavailable, ConfigError

pytestmark = pytest.mark.anyio


async def stream_info(bus, name):
    return json.loads(await bus.request(f"$JS.API.STREAM.INFO.{name}", b"", 5))


async def test_streams_are_as_designed_and_making_them_twice_changes_nothing(bus):
    await bus.publish_durable("psf.in.event.0", b"kept")
    await bus.ensure_streams()
    infos = {name: await stream_info(bus, name) for name in (STREAM_IN, STREAM_TASK, STREAM_EVT)}
    assert {name: info["config"]["retention"] for name, info in infos.items()} == {
        STREAM_IN: "workqueue",
        STREAM_TASK: "workqueue",
        STREAM_EVT: "limits",
    }
    assert all(info["config"]["storage"] == "file" for info in infos.values())
    task = infos[STREAM_TASK]["config"]
    assert (task["max_msgs_per_subject"], task["discard"]) == (1, "new")
    assert task["discard_new_per_subject"]
    events = infos[STREAM_EVT]["config"]
    assert (events["max_age"], events["discard"]) == (3 * 86400 * 10**9, "old")
    assert events["max_bytes"] == 512 * 1024 * 1024
    assert infos[STREAM_IN]["state"]["messages"] == 1


async def test_events_of_many_subjects_are_stored_under_few(bus):
    """A stream keeps each of its subjects in memory."""
    runs = [f"psf.evt.run.{uuid4()}" for _ in range(100)]
    heard = []
    async with await bus.subscribe("psf.evt.>", lambda message: heard.append(message.subject)):
        for subject in runs:
            await bus.publish_durable(subject, b"{}")
        await bus.flush()
    assert heard == runs
    request = json.dumps({"subjects_filter": "psf.evt.>"}).encode()
    stored = json.loads(await bus.request(f"$JS.API.STREAM.INFO.{STREAM_EVT}", request, 5))
    assert stored["state"]["subjects"].keys() <= {f"psf.evt.run.{part}" for part in range(8)}
    assert sum(stored["state"]["subjects"].values()) == stored["state"]["messages"] == 100


async def test_a_stream_that_stores_events_as_they_are_published_is_brought_up_to_date(bus):
    """As one that an earlier version made."""
    config = (await stream_info(bus, STREAM_EVT))["config"]
    del config["subject_transform"]
    await bus.request(f"$JS.API.STREAM.UPDATE.{STREAM_EVT}", json.dumps(config).encode(), 5)
    assert "subject_transform" not in (await stream_info(bus, STREAM_EVT))["config"]
    await bus.publish_durable("psf.evt.run.before", b"{}")
    await bus.ensure_streams()
    await bus.publish_durable("psf.evt.run.after", b"{}")
    assert (await stream_info(bus, STREAM_EVT))["state"]["messages"] == 2
    assert await find_next(bus, STREAM_EVT, "psf.evt.run.before", 1) is not None
    assert await find_next(bus, STREAM_EVT, "psf.evt.run.after", 1) is None


async def test_settings_that_differ_are_brought_up_to_date(bus):
    config = (await stream_info(bus, STREAM_EVT))["config"] | {"max_age": 10**12}
    await bus.request(f"$JS.API.STREAM.UPDATE.{STREAM_EVT}", json.dumps(config).encode(), 5)
    assert (await stream_info(bus, STREAM_EVT))["config"]["max_age"] == 10**12
    await bus.ensure_streams()
    assert (await stream_info(bus, STREAM_EVT))["config"]["max_age"] == 3 * 86400 * 10**9


async def test_a_task_that_waits_is_not_doubled(bus):
    subject = "psf.task.default.run.task.1"
    assert await bus.publish_durable(subject, b"a", message_id="1")
    assert not await bus.publish_durable(subject, b"a", message_id="2")
    assert not await bus.publish_durable(subject, b"a")
    assert (await stream_info(bus, STREAM_TASK))["state"]["messages"] == 1


async def test_more_replicas_than_servers_is_a_config_error(server):
    async with Bus.connect(msgspec.structs.replace(server.settings, replicas=3)) as bus:
        with pytest.raises(ConfigError, match="stream PSF_IN"):
            await bus.ensure_streams()


async def test_a_server_without_jetstream_is_told_at_once(make_server):
    server = make_server()
    server.start(jetstream=False)
    async with Bus.connect(server.settings) as bus:
        with pytest.raises(BusUnavailable, match="start nats-server with -js"):
            await bus.ensure_streams()
