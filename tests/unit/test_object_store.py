"""Files of an object store: in S3's API, in memory and in folders alike."""

import threading
import time
from uuid import uuid4

import anyio
import pytest
from moto.server import ThreadedMotoServer

from pubsubflow.errors import NotFound
from pubsubflow.object_store import FileStore, ObjectStoreUnavailable

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def s3():
    """A server that speaks S3, where the environment says."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "quiet")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield
    server.stop()


@pytest.fixture(params=["s3", "memory", "file"])
def store(request, tmp_path):
    name = f"lake-{uuid4()}"
    if request.param == "s3":
        request.getfixturevalue("s3")
    urls = {"s3": f"s3://{name}/psf/", "memory": f"memory://{name}", "file": f"file://{tmp_path}/s"}
    made = FileStore(urls[request.param], setting="results.store")
    if request.param == "s3":
        made._files.mkdir(name)
    return made


async def test_what_is_written_is_read_listed_and_deleted(store):
    large = bytes(range(256)) * 40_000
    await store.write("0/7/1.msgpack", b"first")
    await store.write("0/7/1.msgpack", large)
    await store.write("0/8/1.msgpack", b"")
    assert await store.read("0/7/1.msgpack") == large
    assert await store.list() == {"0/7/1.msgpack": len(large), "0/8/1.msgpack": 0}
    assert await store.list("0/8") == {"0/8/1.msgpack": 0}
    await store.delete(["0/7/1.msgpack", "0/9/gone"])
    await store.delete([])
    assert await store.list() == {"0/8/1.msgpack": 0}
    with pytest.raises(NotFound):
        await store.read("0/7/1.msgpack")


async def test_a_bucket_that_is_not_there_is_a_store_that_is_away(s3):
    store = FileStore("s3://never-made/psf", setting="results.store")
    with pytest.raises(ObjectStoreUnavailable, match="s3://never-made/psf"):
        await store.write("a", b"x")


async def test_a_store_that_hangs_is_away_after_a_while(tmp_path, monkeypatch):
    store = FileStore(f"file://{tmp_path}", setting="results.store", seconds=0.05)
    monkeypatch.setattr(store, "_read", lambda _: time.sleep(0.3))
    with pytest.raises(ObjectStoreUnavailable, match=r"did not answer within 0.05 s"):
        await store.read("a")


async def test_a_store_that_hangs_takes_eight_threads_at_most(tmp_path, monkeypatch):
    store = FileStore(f"file://{tmp_path}", setting="results.store", seconds=0.05)
    entered, leave = [], threading.Event()

    def hang(name):
        entered.append(name)
        leave.wait(30)
        return b"read"

    async def not_answered(name):
        with pytest.raises(ObjectStoreUnavailable, match="did not answer"):
            await store.read(name)

    monkeypatch.setattr(store, "_read", hang)
    for _ in range(2):
        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(not_answered, f"{number}")
    assert len(entered) == 8
    leave.set()
    store._seconds = 30.0
    assert await store.read("again") == b"read"
