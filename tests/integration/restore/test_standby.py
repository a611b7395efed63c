"""Postgres has a standby: after a fail-over the daemons go on with it, and know what is missing."""

from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from pubsubflow.bus import Bus
from pubsubflow.errors import StoreUnavailable
from pubsubflow.model.wire.commands import StartRun
from pubsubflow.store.database import Database
from pubsubflow.store.migrate import migrate
from pubsubflow.store.servers.settings import PostgresSettings
from support.harness import post, running_managers
from support.postgres_pair import PostgresPair
from support.specs import dag, task

pytestmark = pytest.mark.anyio
EPOCH = "SELECT number FROM store_epoch"


@pytest.fixture
async def pair():
    async with PostgresPair() as pair:
        yield pair


@asynccontextmanager
async def managed(url, nats):
    settings = PostgresSettings(url=url, connect_seconds=60)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database.open(settings))
        await migrate(database)
        bus = await stack.enter_async_context(Bus.connect(nats))
        await bus.ensure_streams()
        yield await stack.enter_async_context(running_managers(database, bus, nats))


async def test_a_synchronous_standby_takes_over_and_what_runs_runs_on(pair, nats):
    """No acknowledged event is lost, no task begins again, no epoch begins."""
    async with managed(pair.url, nats) as harness:
        await harness.load(dag("d", task("a"), task("b", "a")))
        run = await harness.run_number(await harness.call(StartRun("d")))
        order = await harness.order("a", run=run)
        for number in range(20):
            await harness.call(post("x", keys=(f"k{number}",)))
        await witness_has_it(harness)
        pair.primary.kill()
        with pytest.raises(StoreUnavailable):
            await harness.call(post("x", keys=("while-away",)))
        await pair.fail_over()
        await harness.report(order.result())
        again = await harness.order("b", run=run)
        await harness.report(again.result())
        await harness.until_states("success")
        assert [each.message.delivery for each in harness.received] == [1, 1]
        assert await harness.value(EPOCH) == 0
        assert await harness.value("SELECT count(*) FROM idempotency_key") == 20


async def witness_has_it(harness):
    """Wait until NATS knows all that is in the database."""
    guard = harness.managers[0]._epochs

    async def known():
        last = await harness.value("SELECT max(id) FROM change")
        return guard._published is not None and guard._published.last_change >= last

    await harness.until(known)
