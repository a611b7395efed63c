"""Whoever breaks off and comes back gets what one who never left gets."""

import random
from fnmatch import fnmatchcase

import aiohttp
import anyio
import pytest

from pubsubflow.api.stream.settings import StreamSettings
from pubsubflow.manager import Manager
from support.api import ApiHarness, api_on
from support.specs import dag, task
from support.stream_reader import listening

pytestmark = pytest.mark.anyio

LANDINGS = ("s3://lake/a", "s3://lake/b", "x://c")
PATTERNS = (*LANDINGS, "s3://lake/*", "x://**")
END = "end://end"
READERS = 6


@pytest.fixture
async def second(database, bus):
    """A second manager and its API: what both write interleaves. It keeps hardly any news."""
    stopping = anyio.Event()
    manager = Manager(database=database, bus=bus)
    api = api_on(manager, database, bus, stream=StreamSettings(recent_bytes=2000))
    async with anyio.create_task_group() as group, aiohttp.ClientSession() as session:
        await group.start(manager.run, stopping)
        await group.start(api.run, stopping)
        yield ApiHarness(api.url, session, bus, database)
        stopping.set()


def some_filter(chance, run_ids):
    """Return names with some of their values; most readers have one name, some none or more."""
    values = {
        "dag": ["a", "b", "c"],
        "run": run_ids,
        "dataset": PATTERNS,
        "kind": ["run", "task", "dataset", "dag"],
    }
    names = chance.sample(sorted(values), chance.choice((0, 1, 1, 1, 2)))
    return {name: chance.sample(values[name], chance.randint(1, 2)) for name in names}


def wanted(message, requested):
    """Whether a reader with that filter gets it; written down once more, and simply."""
    change_name = message.change()
    found = {
        "dag": getattr(change_name, "dag_id", None),
        "run": getattr(change_name, "run_id", None),
        "kind": message.event,
    }
    uri = getattr(change_name, "dataset", None)
    return all(
        found[name] in values for name, values in requested.items() if name != "dataset"
    ) and (
        "dataset" not in requested
        or (uri is not None and any(fnmatchcase(uri, value) for value in requested["dataset"]))
    )


async def read_with_breaks(urls, start, requested, expected, chance):
    """Read as many messages as there are for a filter, over many connections."""
    found, last_id = [], start
    query = [(name, value) for name, values in requested.items() for value in values]
    while len(found) < len(expected):
        count = min(chance.randint(0, 9), len(expected) - len(found))
        async with listening(chance.choice(urls), *query, last_id=last_id) as reader:
            found += await reader.take(count)
            last_id = reader.last_id
    assert [message.id for message in found] == [message.id for message in expected]
    assert found == expected


@pytest.mark.parametrize("seed", range(2))
async def test_parts_make_the_whole(harness, second, seed):
    chance = random.Random(seed)
    await harness.load(
        *(
            dag(name, task("work", outlets=(f"x://{name}",)), on=[uri])
            for name, uri in zip("abc", LANDINGS, strict=True)
        )
    )
    rigs = (harness, second)
    async with listening(harness.url) as whole:
        start = whole.last_id

        async def work(one, name):
            for _ in range(4):
                await one.post("/api/v1/datasets/events", {"dataset": chance.choice(LANDINGS)})
                await one.finish(await one.start(name), 0)

        async with anyio.create_task_group() as group:
            for one in rigs:
                for name in "abc":
                    group.start_soon(work, one, name)
        await harness.post("/api/v1/datasets/events", {"dataset": END})
        messages = await whole.take()
        while getattr(messages[-1].change(), "dataset", "") != END:
            messages += await whole.take()
    assert len({message.id for message in messages}) == len(messages) > 150
    run_ids = sorted({message.change().run_id for message in messages} - {None})
    urls = [one.url for one in rigs]
    async with anyio.create_task_group() as group:
        for _ in range(READERS):
            requested = some_filter(chance, run_ids)
            expected = [message for message in messages if wanted(message, requested)]
            reading = random.Random(chance.random())
            group.start_soon(read_with_breaks, urls, start, requested, expected, reading)


async def test_those_who_read_while_it_happens_get_the_same(harness, second):
    """Readers of two daemons, which see two managers' rows come in as they are committed."""
    await harness.load(dag("a", task("work", outlets=("x://a",)), on=[LANDINGS[0]]))
    async with (
        listening(harness.url) as first,
        listening(second.url, last_id=first.last_id) as other,
    ):

        async def work(one):
            for _ in range(10):
                await one.post("/api/v1/datasets/events", {"dataset": LANDINGS[0]})

        async with anyio.create_task_group() as group:
            for one in (harness, second, harness, second):
                group.start_soon(work, one)
        await harness.post("/api/v1/datasets/events", {"dataset": END})
        messages = await first.take()
        while getattr(messages[-1].change(), "dataset", "") != END:
            messages += await first.take()
        assert await other.take(len(messages)) == messages
        assert sum(message.event == "dataset" for message in messages) == 41
