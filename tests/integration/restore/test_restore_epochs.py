"""A restored database: what was handed out after the backup is void, and new numbers are new."""

from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest

from pubsubflow.bus import STREAM_STATE, Bus, read_last
from pubsubflow.errors import StoreRestored
from pubsubflow.manager import Sweeper
from pubsubflow.manager.epochs import EpochGuard, Witness
from pubsubflow.model.runs.fences import epoch_of
from pubsubflow.model.wire.commands import StartRun
from pubsubflow.model.wire.messages import Outcome, PublishedEvent, encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.model.wire.waits import Wait, WaitSet
from pubsubflow.store.database import Database
from pubsubflow.store.epochs import read_identity
from pubsubflow.store.servers.settings import PostgresSettings
from support.harness import post, running_managers
from support.specs import dag, task, uri

pytestmark = pytest.mark.anyio

EPOCH = "SELECT number FROM store_epoch"


@pytest.fixture
async def stage(postgres, nats):
    """Run a manager on a database, the test's own or another one."""

    @asynccontextmanager
    async def run(url=postgres.url):
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(Database.open(PostgresSettings(url=url)))
            bus = await stack.enter_async_context(Bus.connect(nats))
            await bus.ensure_streams()
            yield await stack.enter_async_context(running_managers(database, bus, nats))

    return run


@pytest.fixture
async def back_up(servers, postgres):
    """Copy the database while nothing is connected to it; give the URL of the copy."""

    async def copy() -> str:
        name = postgres.url.split("@/")[1].split("?")[0]
        admin = await asyncpg.connect(servers.postgres.dsn)
        try:
            await admin.execute(f"CREATE DATABASE {name}_copy TEMPLATE {name}")
        finally:
            await admin.close()
        return postgres.url.replace(f"@/{name}?", f"@/{name}_copy?")

    return copy


def void_messages(harness) -> dict[str, int]:
    """Return how many messages the manager has dropped as void, by kind."""
    name = "pubsubflow_void_messages"
    (found,) = (each for each in harness.managers[0].metrics if each.name == name)
    return {kind: int(value) for (kind,), value in found.read()}


async def play_on(harness) -> None:
    """Answer every order until no run is live."""
    harness.automatic = lambda order: [order.result()]
    for order in harness.orders:
        harness.answer(order, [order.result()])
    await Sweeper(database=harness.database, bus=harness.bus).sweep()
    await harness.quiet()


async def test_what_was_handed_out_after_the_backup_is_void(stage, back_up):
    async with stage() as harness:
        await harness.load(dag("d", task("a"), task("b", "a")))
        await harness.call(StartRun("d"))
        first = await harness.order("a")
    backup = await back_up()
    async with stage() as harness:
        await harness.report(first.result())
        lost_task = await harness.order("b")
        run = await harness.run_number(await harness.call(StartRun("d")))
        lost_run = await harness.order("a", run=run)
    stale = [each.result() for each in (first, lost_task, lost_run)]
    async with stage(backup) as harness:
        epoch = await harness.value(EPOCH)
        assert epoch > 0
        for result in stale:
            await harness.report(result)
        assert void_messages(harness) == {"ResultMessage": 3}
        assert await harness.rows("SELECT * FROM task") == []
        new = await harness.run_number(await harness.call(StartRun("d")))
        assert new not in (first.message.run, lost_run.message.run)
        await play_on(harness)
        await harness.until_states("success", "success")
        assert {epoch_of(order.message.delivery) for order in harness.received} == {epoch}


async def test_orders_of_before_do_not_occupy_the_subjects_of_new_ones(stage, back_up):
    """A task that is in the backup goes out again, although its first order is still there."""
    async with stage() as harness:
        await harness.load(dag("d", task("a")))
        await harness.call(StartRun("d"))
        await harness.order("a")
    async with stage(await back_up()) as harness:
        await play_on(harness)
        assert len(harness.received) == 1
        await harness.until_states("success")


async def test_two_restores_of_one_backup_are_two_epochs(stage, back_up):
    async with stage() as harness:
        await harness.load(dag("d", task("a")))
    backup = await back_up()
    async with stage(backup) as harness:
        first = await harness.value(EPOCH)
        await harness.call(StartRun("d"))
        lost = await harness.order("a")
    async with stage() as harness:  # the one that was copied comes back in its turn
        second = await harness.value(EPOCH)
        assert second > first > 0
        run = await harness.run_number(await harness.call(StartRun("d")))
        assert run != lost.message.run


async def test_waits_go_on_and_old_firings_are_void(stage, back_up):
    async with stage() as harness:
        await harness.load(dag("d", task("a")))
        await harness.call(StartRun("d"))
        order = await harness.order("a")
        order.delivery.ack()
        waits = WaitSet("0", "it", (Wait("event", uri("x")),))
        await harness.report(order.result(Outcome.DEFERRED, wait_set=encode(waits)))
    async with stage(await back_up()) as harness:
        await harness.call(post("x"))
        again = await harness.order("a")
        assert epoch_of(again.message.delivery) == await harness.value(EPOCH)
        assert again.message.journal
        await harness.report(again.result())
        await harness.until_states("success")


async def test_events_that_tasks_published_under_void_orders_are_not_recorded(stage, back_up):
    async with stage() as harness:
        await harness.load(dag("d", task("a")))
    backup = await back_up()
    async with stage() as harness:
        await harness.call(StartRun("d"))
        order = await harness.order("a")
    run, delivery = order.message.run, order.message.delivery
    event = PublishedEvent(run, 0, -1, f"{run}.0.-1.0", uri("y"), delivery=delivery)
    async with stage(backup) as harness:
        await harness.publish(Subjects.inbound(Subjects.EVENT, run), event)
        assert await harness.rows("SELECT * FROM event") == []
        assert void_messages(harness) == {"RecordEvents": 1}


async def test_missing_transactions_show_a_restore(stage):
    """A copy of the data folder is the same database; only its transactions are fewer."""
    async with stage() as harness:
        await harness.load(dag("d", task("a")))
        await harness.until(lambda: read_last(harness.bus, STREAM_STATE, Subjects.WITNESS))
        await pretend_transactions(harness)
    async with stage() as harness:
        assert await harness.value(EPOCH) > 0


async def pretend_transactions(harness) -> None:
    """Have NATS know of a thousand transactions more than there are."""
    async with harness.database.connection() as connection:
        identity = await read_identity(connection)
    witness = Witness(0, identity.name, identity.next_transaction + 1000)
    await harness.bus.publish_durable(Subjects.WITNESS, encode(witness))


async def test_a_daemon_that_has_lived_through_a_restore_starts_anew(stage, database, bus):
    async with stage() as harness:
        guard = EpochGuard(bus)
        async with database.connection() as connection:
            await guard.check(connection)
            await pretend_transactions(harness)
            with pytest.raises(StoreRestored, match="epoch"):
                await guard.check(connection)


async def test_a_database_that_was_not_restored_keeps_its_epoch(stage):
    async with stage() as harness:
        await harness.load(dag("d", task("a")))
        await harness.call(StartRun("d"))
        await harness.order("a")
    async with stage() as harness:
        assert await harness.value(EPOCH) == 0
        assert void_messages(harness) == {}
