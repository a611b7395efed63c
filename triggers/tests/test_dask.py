import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from distributed import Client, Event
from pubsubflow_triggers.dask import DaskFuture
from trigger_rig import beside, fired, payloads

from pubsubflow.errors import DefinitionError, TriggerError

pytestmark = pytest.mark.anyio


@contextmanager
def cluster(port=0):
    """Run a scheduler and a worker until the block ends."""
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("dask_cluster.py"), str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process.stdout.readline().strip()
    finally:
        process.communicate()


@pytest.fixture(scope="module")
def scheduler():
    with cluster() as address:
        yield address


@pytest.fixture
async def client(scheduler):
    async with Client(scheduler, asynchronous=True, set_as_default=False) as client:
        yield client


async def gated(client, name, function):
    """Submit what runs once the event of that name is set; the scheduler knows of it then."""

    def wait_and_call(name):
        Event(name).wait()
        return function()

    future = client.submit(wait_and_call, name, key=name)
    await client.publish_dataset(future, name=name)
    await client.unpublish_dataset(name)
    return future


async def test_future_fires_when_it_is_finished_and_at_once_if_it_is(scheduler, client):
    future = await gated(client, "good", lambda: 1)
    trigger = DaskFuture(scheduler=scheduler, key=future.key)
    async with beside(trigger) as ctx:
        await ctx.until("dask.waiting")
        await Event("good", client=client).set()
    assert [event.payload for event in ctx.events] == [{"key": "good", "status": "finished"}]
    assert await payloads(trigger) == [{"key": "good", "status": "finished"}]
    assert await future == 1


async def test_failed_future_fails_the_wait_with_its_text(scheduler, client):
    future = await gated(client, "bad", lambda: {}["no such key"])
    await Event("bad", client=client).set()
    with pytest.raises(TriggerError, match="'bad' failed: KeyError: 'no such key'"):
        await fired(DaskFuture(scheduler=scheduler, key=future.key))


async def test_published_future_is_found_although_its_client_has_gone(scheduler):
    async with Client(scheduler, asynchronous=True, set_as_default=False) as client:
        await client.publish_dataset(shown=client.submit(sum, [1, 2], key="published"))
    assert len(await fired(DaskFuture(scheduler=scheduler, key="published"))) == 1


async def test_future_that_the_scheduler_does_not_know_fails(scheduler):
    with pytest.raises(TriggerError, match="has no future 'nobody'"):
        await fired(DaskFuture(scheduler=scheduler, key="nobody"))


async def test_future_that_is_cancelled_fails_the_wait(scheduler, client):
    future = await gated(client, "gone", lambda: 1)

    async def cancel_while_it_waits():
        async with beside(DaskFuture(scheduler=scheduler, key=future.key)) as ctx:
            await ctx.until("dask.waiting")
            await client.cancel([future], force=True)

    with pytest.raises(ExceptionGroup) as failed:
        await cancel_while_it_waits()
    assert failed.group_contains(TriggerError, match="has no future 'gone'")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"scheduler": "http://x", "key": "a"}, "scheduler must be tcp"),
        ({"scheduler": "tcp://x", "key": ""}, "key is empty"),
    ],
)
def test_impossible_fields_are_refused(fields, text):
    with pytest.raises(DefinitionError, match=text):
        DaskFuture(**fields)
