"""Several triggerers: they share, take over, and lose what is not theirs."""

from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import anyio
import pytest
from msgspec.structs import replace

from pubsubflow.store.database import Database
from pubsubflow.store.servers.settings import PostgresSettings
from support.relay import relayed

pytestmark = pytest.mark.anyio


async def all_owned(harness, numbers):
    async def look():
        owners = await harness.owners()
        return all(owners.get(number) for number in numbers) and owners

    return await harness.until(look)


async def test_two_share_what_there_is(harness, run_triggerer):
    one, two = [await run_triggerer(silent_seconds=600.0, capacity=200) for _ in range(2)]
    numbers = [await harness.add("nap", seconds=600.0, notify=False) for _ in range(300)]
    harness.order(fresh=True)
    owners = list((await all_owned(harness, numbers)).values())
    assert {one.name, two.name} == set(owners)
    assert min(owners.count(one.name), owners.count(two.name)) >= 30


async def test_capacity_bounds_what_is_taken(harness, source, run_triggerer):
    await run_triggerer(capacity=2)
    numbers = [await harness.add(label=label, notify=False) for label in "abc"]
    harness.order(fresh=True)
    await source.reported("a", "started")
    await source.reported("b", "started")
    assert (await harness.owners())[numbers[2]] is None
    await source.send("a", "fire")
    await source.reported("c", "started")


async def test_triggers_of_a_dead_one_are_taken_over(harness, source, run_triggerer, facts):
    one = await run_triggerer()
    numbers = {label: await harness.add(label=label) for label in "ab"}
    for label in "ab":
        await source.reported(label, "started")
    two = await run_triggerer()
    await one.die()
    with anyio.fail_after(20):
        for label in "ab":
            await source.reported(label, "started", times=2)
    assert set((await harness.owners()).values()) == {two.name}
    await source.send("a", "fire")
    assert (await harness.until_fired(numbers["a"])).epoch == 2
    assert [each["triggers"] for each in facts if each["event"] == "triggerer.peer_expired"] == [2]


async def test_a_clean_stop_hands_over_at_once(harness, source, run_triggerer):
    one = await run_triggerer(silent_seconds=600.0)
    await harness.add(label="a")
    await source.reported("a", "started")
    two = await run_triggerer(silent_seconds=600.0)
    await one.stop()
    assert source.count("a", "closed") == 1
    with anyio.fail_after(20):
        await source.reported("a", "started", times=2)
    assert set((await harness.owners()).values()) == {two.name}
    assert await harness.rows("SELECT name FROM triggerer") == [(two.name,)]


async def test_who_was_declared_dead_stops_and_starts_afresh(harness, source, run_triggerer, facts):
    running = await run_triggerer()
    number = await harness.add(label="a")
    await source.reported("a", "started")
    await harness.rows("DELETE FROM triggerer")
    await harness.rows("UPDATE trigger SET owner = NULL")
    await source.reported("a", "closed")
    await source.reported("a", "started", times=2)
    assert await harness.rows("SELECT owner, epoch FROM trigger WHERE id = $1", number) == [
        (running.name, 2)
    ]
    assert [each["triggers"] for each in facts if each["event"] == "triggerer.leases_lost"] == [1]


async def test_a_lease_that_another_one_has_is_noticed(harness, source, run_triggerer):
    await run_triggerer()
    number = await harness.add(label="a")
    await harness.add(label="b")
    await source.reported("a", "started")
    await source.reported("b", "started")
    await harness.rows("UPDATE trigger SET owner = 'x', epoch = epoch + 1 WHERE id = $1", number)
    await source.reported("a", "closed")
    assert not source.count("b", "closed")


async def test_a_lease_that_no_triggerer_knows_is_claimed_again(harness, source, run_triggerer):
    running = await run_triggerer()
    number = await harness.add(label="a", notify=False)
    await harness.rows("UPDATE trigger SET owner = $2 WHERE id = $1", number, running.name)
    await source.reported("a", "started")


async def test_triggers_go_on_while_the_store_is_away(
    harness, source, run_triggerer, servers, postgres, facts
):
    def logged(event):
        return [each for each in facts if each["event"] == event]

    name = urlsplit(postgres.url).path.removeprefix("/")
    with TemporaryDirectory(prefix="psf") as folder:  # a short path: it holds a socket
        address = replace(servers.postgres, database=name)
        async with (
            relayed(address, Path(folder)) as (relay, near),
            Database.open(PostgresSettings(url=near.dsn)) as database,
        ):
            running = await run_triggerer(database)
            number = await harness.add(label="a")
            await source.reported("a", "started")
            relay.cut()
            await harness.until(lambda: logged("triggerer.store_lost"))
            await source.send("a", "fire")
            await harness.until_fired(number)
            relay.up = True
            await harness.until(lambda: logged("triggerer.store_recovered"))
            await harness.add(label="b")
            await source.reported("b", "started")
            await running.stop()
    assert len(logged("triggerer.store_lost")) == 1
