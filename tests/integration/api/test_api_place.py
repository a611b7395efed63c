"""A response with its place, and what the stream sends after it, are the state."""

import random
from contextlib import AsyncExitStack

import aiohttp
import anyio
import pytest

from pubsubflow.manager import Manager
from pubsubflow.model.changes import LogPosition
from support.api import ApiHarness, api_on
from support.specs import dag, task
from support.stream_reader import listening

pytestmark = pytest.mark.anyio

A, END = "s3://lake/a", "end://end"


@pytest.fixture
async def second(database, bus):
    """A second manager and its API: what both write interleaves."""
    stopping = anyio.Event()
    manager = Manager(database=database, bus=bus)
    api = api_on(manager, database, bus)
    async with anyio.create_task_group() as group, aiohttp.ClientSession() as session:
        await group.start(manager.run, stopping)
        await group.start(api.run, stopping)
        yield ApiHarness(api.url, session, bus, database)
        stopping.set()


async def read(harness):
    """Return the states of all runs, and the place up to which they are true."""
    url, headers = f"{harness.url}/api/v1/runs?limit=1000", {"Psf-Place": "wanted"}
    async with harness.session.get(url, headers=headers) as response:
        items = (await response.json())["items"]
        return {run["run_id"]: run["state"] for run in items}, response.headers["Psf-Place"]


async def follow(harness, states, place):
    """Apply to a state what the stream sends after its place, until the end."""
    async with listening(
        harness.url, ("kind", "run"), ("kind", "dataset"), last_id=place
    ) as reader:
        while True:
            for message in await reader.take():
                change = message.change()
                if message.event == "reset" or getattr(change, "dataset", "") == END:
                    assert message.event != "reset"
                    return states
                if message.event == "run":
                    states[change.run_id] = str(change.state)


async def test_a_state_and_what_follows_its_place_are_the_state(harness, second):
    """Whatever is posted meanwhile, by two managers, with a stream that is open and without one."""
    chance = random.Random(7)
    await harness.load(dag("a", task("work"), on=[A], max_active_runs=3))
    rigs = (harness, second)
    snapshots = []

    async def post(one):
        for _ in range(12):
            await one.post("/api/v1/datasets/events", {"dataset": A})
            (run, *_) = (await one.get("/api/v1/runs?state=running"))["items"] or [None]
            if run is not None and chance.random() < 0.7:
                await one.request("POST", f"/api/v1/runs/{run['run_id']}/cancel", status=200)

    async def look(one):
        for _ in range(6):
            found = await read(one)
            snapshots.append((one, *found))

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(listening(second.url))
        async with anyio.create_task_group() as group:
            group.start_soon(post, harness)
            for one in rigs:
                group.start_soon(look, one)
        await harness.post("/api/v1/datasets/events", {"dataset": END})
        expected, last = await read(harness)
        for one, states, place in snapshots:
            assert LogPosition.parse(place) is not None
            assert await follow(one, states, place) == expected
    # Behind it all nothing follows, so the place is the end of the log.
    assert LogPosition.parse(last).row > LogPosition.parse(snapshots[0][2]).row


async def test_who_does_not_want_the_place_pays_nothing_for_it(harness):
    async with harness.session.get(f"{harness.url}/api/v1/runs") as response:
        assert "Psf-Place" not in response.headers
    async with harness.session.get(
        f"{harness.url}/api/v1/runs", headers={"Psf-Place": "wanted"}
    ) as response:
        first, etag = response.headers["Psf-Place"], response.headers["ETag"]
    async with harness.session.get(
        f"{harness.url}/api/v1/runs", headers={"Psf-Place": "wanted", "If-None-Match": etag}
    ) as response:
        assert (response.status, response.headers["Psf-Place"]) == (304, first)
