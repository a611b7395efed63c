"""What is waited for, over HTTP."""

from datetime import UTC, datetime

import aiohttp
import anyio
import msgspec
import pytest

from pubsubflow.api import Api, ApiSettings
from pubsubflow.manager import Manager
from pubsubflow.store.auth import AuditLog, SessionStore, TokenStore
from pubsubflow.store.read.read_models import ReadModels

pytestmark = pytest.mark.anyio


@pytest.fixture
async def get(database, bus):
    stopping = anyio.Event()
    api = Api(
        commands=Manager(database=database, bus=bus),
        read_models=ReadModels(database),
        bus=bus,
        settings=ApiSettings(port=0),
        tokens=TokenStore(database),
        audit=AuditLog(database),
        sessions=SessionStore(database),
    )

    async def get_page(path, status=200):
        async with session.get(api.url + path) as response:
            assert response.status == status
            return msgspec.json.decode(await response.read())

    async with anyio.create_task_group() as group, aiohttp.ClientSession() as session:
        await group.start(api.run, stopping)
        yield get_page
        stopping.set()


async def states(get):
    items = (await get("/api/v1/triggers"))["items"]
    return [(each["number"], each["state"]) for each in reversed(items)]


async def test_all_kinds_are_listed_newest_first(harness, get, run_triggerer):
    await harness.rows("INSERT INTO dataset (uri) VALUES ('s3://lake/x')")
    dataset = (await harness.rows("SELECT id FROM dataset"))[0][0]
    numbers = [
        await harness.add("sleep", kind="time"),
        await harness.add("s3://lake/*", kind="event"),
        await harness.add("nap", seconds=600.0),
    ]
    watch = await harness.add("nap", kind="watch", seconds=600.0)
    await harness.rows("UPDATE trigger SET dataset = $2, error = 'e' WHERE id = $1", watch, dataset)
    await harness.rows("UPDATE trigger SET due_at = '2026-01-01Z' WHERE id = $1", numbers[0])
    assert await states(get) == [
        *((number, "waiting") for number in numbers[:2]),
        *((number, "unclaimed") for number in (numbers[2], watch)),
    ]
    listed = (await get("/api/v1/triggers"))["items"]
    assert [each["kind"] for each in listed] == ["watch", "trigger", "event", "time"]
    assert (listed[0]["dataset"], listed[0]["error"]) == ("s3://lake/x", "e")
    assert listed[3]["due_at"] == "2026-01-01T00:00:00Z"
    running = await run_triggerer()

    async def owned():
        items = (await get("/api/v1/triggers"))["items"]
        return [each["owner"] for each in items] == [running.name, running.name, None, None]

    await harness.until(owned)
    assert {state for _, state in await states(get)} == {"waiting"}


async def test_what_a_trigger_looks_at_is_listed_without_secrets(harness, get):
    await harness.rows("INSERT INTO dataset (uri) VALUES ('s3://lake/x')")
    dataset = (await harness.rows("SELECT id FROM dataset"))[0][0]
    watch = await harness.add(
        "remote",
        kind="watch",
        path="/data/in",
        url="nats://ann:hush@nats.example.com/x?sig=hush",
        bearer="hush",
        password="hush",
        headers={"X-Key": "hush"},
        until=datetime(2026, 1, 1, tzinfo=UTC),
    )
    await harness.rows(
        "UPDATE trigger SET dataset = $2, error = 'away', error_since = '2026-01-01Z'"
        " WHERE id = $1",
        watch,
        dataset,
    )
    await harness.rows("INSERT INTO watch_file VALUES ($1, 'lake.py'), ($1, 'a.py')", watch)
    (shown,) = (await get("/api/v1/triggers"))["items"]
    assert shown["files"] == ["a.py", "lake.py"]
    assert (shown["error"], shown["error_since"]) == ("away", "2026-01-01T00:00:00Z")
    assert "hush" not in str(shown)
    assert shown["fields"]["path"] == "/data/in"
    assert shown["fields"]["url"] == "nats://***@nats.example.com/x"
    assert shown["fields"]["until"] == "2026-01-01T00:00:00Z"


async def test_what_no_triggerer_has_room_for_is_seen(harness, get, run_triggerer):
    running = await run_triggerer(capacity=1)
    first = await harness.add("nap", seconds=600.0, notify=False)
    second = await harness.add("nap", seconds=600.0)

    async def full():
        return await states(get) == [(first, "waiting"), (second, "over capacity")]

    await harness.until(full)
    await harness.rows("UPDATE trigger SET cancelled = true, kind = 'watch' WHERE id = $1", second)
    assert await states(get) == [(first, "waiting"), (second, "cancelled")]
    await running.stop()


async def test_the_list_has_pages_and_kinds(harness, get):
    numbers = [await harness.add("nap", seconds=1.0) for _ in range(5)]
    watch = await harness.add("nap", kind="watch", seconds=1.0)
    first = await get("/api/v1/triggers?limit=4&kind=trigger")
    assert [each["number"] for each in first["items"]] == numbers[:0:-1]
    rest = await get(f"/api/v1/triggers?limit=4&kind=trigger&after={first['next']}")
    assert [each["number"] for each in rest["items"]] == numbers[:1]
    assert rest["next"] is None
    assert [each["number"] for each in (await get("/api/v1/triggers?limit=1"))["items"]] == [watch]
    await get("/api/v1/triggers?kind=dream", status=400)
