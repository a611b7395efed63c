import sys
from datetime import timedelta
from uuid import uuid4

import fsspec
import pytest
from anyio.to_thread import run_sync
from moto.server import ThreadedMotoServer
from pubsubflow_triggers import ObjectAppears, ObjectGlob

from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.testing import JumpingClock, TrialContext, VirtualClock, round_trip, running

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def s3():
    """The options for a server that speaks S3."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "key": "somebody",
        "secret": "quiet",
        "endpoint_url": f"http://{host}:{port}",
        "client_kwargs": {"region_name": "eu-central-1"},
    }
    server.stop()


@pytest.fixture(params=["s3", "memory", "file"])
async def store(request, tmp_path):
    """An empty store: its URL, its options, and how to put something into it."""
    options = request.getfixturevalue("s3") if request.param == "s3" else {}
    name = f"lake-{uuid4()}"
    place = {"s3": f"s3://{name}", "memory": f"memory:///{name}", "file": f"file://{tmp_path}"}
    return Store(place[request.param], options)


class Store:
    def __init__(self, url, options):
        self.url, self.options = url, options
        self.system = fsspec.filesystem(url.split("://")[0], **options)

    async def put(self, name, data):
        await run_sync(self._put, f"{self.url}/{name}", data)

    def _put(self, url, data):
        self.system.makedirs(url.rsplit("/", 1)[0], exist_ok=True)
        self.system.pipe_file(f"{url}.part", data)  # no reader sees half of it
        self.system.mv(f"{url}.part", url)


def past(event):
    """A context after a restart, in which no time passes."""
    return TrialContext(VirtualClock(), position=event.position)


async def test_an_object_fires_when_it_is_there_and_when_it_is_another(store):
    trigger = ObjectAppears(url=f"{store.url}/day/_SUCCESS", storage_options=store.options)
    async with running(trigger) as run:
        await run.ctx.until("sleep", 2)
        await store.put("day/_SUCCESS", b"one")
        first = await run.next()
        await store.put("day/_SUCCESS", b"three")
        second = await run.next()
    assert (first.payload["url"], first.payload["size"]) == (trigger.url, 3)
    assert second.payload["size"] == 5
    assert first.id != second.id
    assert first.payload["modified"].endswith("+00:00")
    async with running(trigger, past(second)) as run:
        await run.ctx.until("sleep")
        assert run.events == []


async def test_a_pattern_tells_of_each_object_once_also_after_a_restart(store):
    trigger = ObjectGlob(url=f"{store.url}/day=*/*.csv", storage_options=store.options)
    await store.put("day=1/a.csv", b"1")
    await store.put("day=1/readme.txt", b"1")
    async with running(trigger) as run:
        first = await run.next()
        await store.put("day=2/b.csv", b"1")
        second = await run.next()
    await store.put("day=2/c.csv", b"1")
    async with running(trigger, past(second)) as run:
        third = await run.next()
        await run.ctx.until("sleep")
        assert len(run.events) == 1
    names = [event.payload["url"].removeprefix(store.url) for event in (first, second, third)]
    assert names == ["/day=1/a.csv", "/day=2/b.csv", "/day=2/c.csv"]


async def test_the_tag_of_s3_is_the_version(s3):
    store = Store(f"s3://lake-{uuid4()}", s3)
    await store.put("a", b"1")
    async with running(ObjectAppears(url=f"{store.url}/a", storage_options=s3)) as run:
        event = await run.next()
    assert event.payload["version"] == "c4ca4238a0b923820dcc509a6f75849b"
    assert event.id == f"{store.url}/a:c4ca4238a0b923820dcc509a6f75849b"


async def test_an_object_must_have_been_the_same_for_long_enough(tmp_path):
    path = tmp_path / "a"
    path.write_text("1")
    clock = JumpingClock()
    began = clock.now()
    trigger = ObjectAppears(url=f"file://{path}", stable_seconds=45)
    async with running(trigger, TrialContext(clock)) as run:
        await run.next()
    assert clock.now() - began >= timedelta(seconds=45)


async def test_a_server_that_is_away_is_asked_again(s3, monkeypatch):
    monkeypatch.setenv("LAKE_SECRET", "quiet")
    options = s3 | {"secret": "env:LAKE_SECRET", "endpoint_url": "http://127.0.0.1:9"}
    options["config_kwargs"] = {"retries": {"max_attempts": 0}, "connect_timeout": 1}
    async with running(ObjectAppears(url="s3://lake/a", storage_options=options)) as run:
        await run.ctx.until("trigger.server_away")
    assert run.error is None


async def test_a_secret_that_is_not_set_fails(monkeypatch):
    monkeypatch.delenv("LAKE_SECRET", raising=False)
    options = {"nested": {"secret": "env:LAKE_SECRET"}}
    async with running(ObjectAppears(url="memory://a", storage_options=options)) as run:
        with pytest.raises(TriggerError, match="LAKE_SECRET"):
            await run.next()


async def test_a_driver_that_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    async with running(ObjectAppears(url="gs://lake/a")) as run:
        with pytest.raises(TriggerError, match=r"pubsubflow-triggers\[s3\].*gcs"):
            await run.next()


def test_fields_are_the_serialised_form():
    trigger = ObjectGlob(url="s3://lake/*", storage_options={"key": "env:KEY", "anon": False})
    assert round_trip(trigger) == trigger
    assert trigger.share_key() == round_trip(trigger).share_key()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ObjectAppears(url="/data/a"), "scheme"),
        (lambda: ObjectAppears(url="nowhere://a"), "scheme"),
        (lambda: ObjectAppears(url="s3://a/b", stable_seconds=-1), "negative"),
        (lambda: ObjectAppears(url="s3://a/b", interval=timedelta(0)), "interval"),
        (lambda: ObjectGlob(url="s3://a/b"), "no wildcard"),
    ],
)
def test_bad_fields_are_refused(make, text):
    with pytest.raises(DefinitionError, match=text):
        make()
