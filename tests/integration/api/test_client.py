"""The client against a real server."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import anyio
import pytest
from anyio import to_thread
from api_rig import dag, task

from pubsubflow.client import Client, Failed, Refused
from pubsubflow.errors import ConfigError, Unavailable

pytestmark = pytest.mark.anyio


@pytest.fixture
async def ask(rig):
    """Call a method of a client; lists come whole."""
    with Client(rig.url) as client:

        async def call(name, *args, **more):
            def work():
                found = getattr(client, name)(*args, **more)
                return list(found) if hasattr(found, "__next__") else found

            return await to_thread.run_sync(work)

        yield call


async def test_lists_come_whole_or_as_far_as_asked_for(rig, ask):
    await ask("emit", [{"dataset": f"s3://lake/{n % 3}", "extra": {"n": n}} for n in range(1000)])
    await ask("emit", [{"dataset": "s3://lake/3", "extra": {"n": 1000 + n}} for n in range(200)])
    everything = await ask("events")
    assert [event.extra["n"] for event in everything] == list(range(1199, -1, -1))
    assert len(await ask("events", limit=1100)) == 1100
    assert len(await ask("events", dataset="s3://lake/3", limit=5)) == 5
    assert [each.dataset for each in await ask("datasets", limit=2)] == [
        "s3://lake/0",
        "s3://lake/1",
    ]


async def test_dags_and_runs(rig, ask):
    await rig.load(*(dag(f"d{n}", task(0, "work")) for n in range(3)))
    assert [each.dag_id for each in (await ask("dags")).items] == ["d0", "d1", "d2"]
    assert len((await ask("dags", limit=2)).items) == 2
    run_id = await ask("trigger", "d0", run_key="k")
    assert await ask("trigger", "d0", run_key="k") == run_id
    assert (await ask("wait", run_id, timeout_seconds=0.1)).state == "running"
    assert (await ask("tasks", run_id))[0].id == f"{run_id}.work"
    assert (await ask("cancel", run_id)).state == "cancelled"
    assert (await ask("wait", run_id)).state == "cancelled"
    with pytest.raises(Failed, match="has ended"):
        await ask("cancel", run_id)
    with pytest.raises(Refused, match="no run named"):
        await ask("run", "no/such run?")
    assert (await ask("readiness")).ready
    assert (await ask("info")).version


async def test_a_connection_that_the_server_closed_is_made_again(serve, rig):
    async with serve() as (api, _):
        with Client(api.url) as client:
            await to_thread.run_sync(client.info)
            client._server._connection.sock.shutdown(2)
            await to_thread.run_sync(client.info)


async def test_nobody_there_and_somebody_else_there():
    with pytest.raises(Unavailable, match="no server answers"), Client("http://127.0.0.1:9") as no:
        no.info()
    with somebody_else() as url, Client(url) as other, pytest.raises(Unavailable, match="404"):
        await to_thread.run_sync(other.info)
    for url in ("127.0.0.1:8080", "ftp://x", "http://"):
        with pytest.raises(ConfigError):
            Client(url)


@contextmanager
def somebody_else():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        def log_message(self, *_):
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_a_follower_notices_that_the_server_goes(serve, rig):
    await rig.load(dag("d", task(0, "work")))
    run_id = await rig.start("d")
    async with serve() as (api, stopping):
        with Client(api.url) as client, anyio.fail_after(10):
            lines = client.logs(run_id, "work", follow=True)
            async with anyio.create_task_group() as group:
                group.start_soon(to_thread.run_sync, list, lines)
                await rig.write(run_id, 0, 0, "a")
                stopping.set()
