"""Several triggerers: they share, take over, and lose what is not theirs."""

from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import anyio
import pytest
from msgspec.structs import replace
from postgres_relay import relayed

from pubsubflow.store.database import Database, PostgresSettings

pytestmark = pytest.mark.anyio


async def all_owned(rig, numbers):
    async def look():
        owners = await rig.owners()
        return all(owners.get(number) for number in numbers) and owners

    return await rig.until(look)


async def test_two_share_what_there_is(rig, run_triggerer):
    one, two = [await run_triggerer(silent_seconds=600.0) for _ in range(2)]
    numbers = [await rig.add("nap", seconds=600.0, tell=False) for _ in range(300)]
    rig.order(fresh=True)
    owners = list((await all_owned(rig, numbers)).values())
    assert {one.name, two.name} == set(owners)
    assert min(owners.count(one.name), owners.count(two.name)) >= 30


async def test_capacity_bounds_what_is_taken(rig, source, run_triggerer):
    await run_triggerer(capacity=2)
    numbers = [await rig.add(label=label, tell=False) for label in "abc"]
    rig.order(fresh=True)
    await source.heard("a", "started")
    await source.heard("b", "started")
    assert (await rig.owners())[numbers[2]] is None
    await source.tell("a", "fire")
    await source.heard("c", "started")


async def test_triggers_of_a_dead_one_are_taken_over(rig, source, run_triggerer, facts):
    one = await run_triggerer()
    numbers = {label: await rig.add(label=label) for label in "ab"}
    for label in "ab":
        await source.heard(label, "started")
    two = await run_triggerer()
    await one.die()
    with anyio.fail_after(20):
        for label in "ab":
            await source.heard(label, "started", times=2)
    assert set((await rig.owners()).values()) == {two.name}
    await source.tell("a", "fire")
    assert (await rig.told(numbers["a"])).epoch == 2
    assert [each["triggers"] for each in facts if each["event"] == "triggerer.gone"] == [2]


async def test_a_clean_stop_hands_over_at_once(rig, source, run_triggerer):
    one = await run_triggerer(silent_seconds=600.0)
    await rig.add(label="a")
    await source.heard("a", "started")
    two = await run_triggerer(silent_seconds=600.0)
    await one.stop()
    assert source.count("a", "closed") == 1
    with anyio.fail_after(20):
        await source.heard("a", "started", times=2)
    assert set((await rig.owners()).values()) == {two.name}
    assert await rig.rows("SELECT name FROM triggerer") == [(two.name,)]


async def test_who_was_declared_dead_stops_and_starts_afresh(rig, source, run_triggerer, facts):
    running = await run_triggerer()
    number = await rig.add(label="a")
    await source.heard("a", "started")
    await rig.rows("DELETE FROM triggerer")
    await rig.rows("UPDATE trigger SET owner = NULL")
    await source.heard("a", "closed")
    await source.heard("a", "started", times=2)
    assert await rig.rows("SELECT owner, epoch FROM trigger WHERE id = $1", number) == [
        (running.name, 2)
    ]
    assert [each["triggers"] for each in facts if each["event"] == "triggerer.leases_lost"] == [1]


async def test_a_lease_that_another_one_has_is_noticed(rig, source, run_triggerer):
    await run_triggerer()
    number = await rig.add(label="a")
    await rig.add(label="b")
    await source.heard("a", "started")
    await source.heard("b", "started")
    await rig.rows("UPDATE trigger SET owner = 'x', epoch = epoch + 1 WHERE id = $1", number)
    await source.heard("a", "closed")
    assert not source.count("b", "closed")


async def test_a_lease_nobody_knows_of_is_taken_anew(rig, source, run_triggerer):
    running = await run_triggerer()
    number = await rig.add(label="a", tell=False)
    await rig.rows("UPDATE trigger SET owner = $2 WHERE id = $1", number, running.name)
    await source.heard("a", "started")


async def test_triggers_go_on_while_the_store_is_away(
    rig, source, run_triggerer, servers, postgres, facts
):
    def told(event):
        return [each for each in facts if each["event"] == event]

    name = urlsplit(postgres.url).path.removeprefix("/")
    with TemporaryDirectory(prefix="psf") as folder:  # a short path: it holds a socket
        address = replace(servers.postgres, database=name)
        async with (
            relayed(address, Path(folder)) as (relay, near),
            Database.open(PostgresSettings(url=near.dsn)) as database,
        ):
            running = await run_triggerer(database)
            number = await rig.add(label="a")
            await source.heard("a", "started")
            relay.cut()
            await rig.until(lambda: told("triggerer.store_away"))
            await source.tell("a", "fire")
            await rig.told(number)
            relay.up = True
            await rig.until(lambda: told("triggerer.store_back"))
            await rig.add(label="b")
            await source.heard("b", "started")
            await running.stop()
    assert len(told("triggerer.store_away")) == 1
