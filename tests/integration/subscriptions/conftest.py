"""A manager and a service that delivers, on real servers, and receivers."""

from contextlib import asynccontextmanager

import anyio
import pytest
from receiver_rig import PATIENCE_SECONDS, QUICK, URI, Receiver

from pubsubflow.deliveries import Subscriptions, SubscriptionsSettings
from pubsubflow.manager import Manager
from pubsubflow.model.subscriptions import CHANGED, Wanted, new_secret
from pubsubflow.model.wire.commands import PostEvents
from pubsubflow.model.wire.messages import NewEvent
from pubsubflow.store.deliveries import Deliveries
from pubsubflow.store.leases import SUBSCRIPTIONS, Lease
from pubsubflow.store.secrets.connections import Connections
from pubsubflow.store.secrets.keyring import KeyFile
from pubsubflow.store.subscribers import Subscribers

LOOKED = """
SELECT FROM pg_stat_activity
WHERE query LIKE '%l.virtualtransaction%' AND datname = current_database()
  AND pid <> pg_backend_pid()
"""


class Rig:
    def __init__(self, database, bus, manager, receiver, subscribers):
        self.database = database
        self.bus = bus
        self.manager = manager
        self.receiver = receiver
        self.subscribers = subscribers

    async def subscribe(self, name, **fields):
        secret = new_secret()
        self.receiver.secrets[name] = secret
        wanted = Wanted(fields.pop("url", f"{self.receiver.url}/{name}"), **fields)
        made = await self.subscribers.add(wanted, secret)
        self.bus.publish(CHANGED, b"")
        return made

    async def post(self, *names, uri=URI, **extra):
        events = tuple(NewEvent(uri, {"name": name, **extra}, extra.get("part")) for name in names)
        recorded = await self.manager.call(PostEvents(events, (None,) * len(events)))
        return [str(each.event_id) for each in recorded]

    async def until(self, made, condition):
        """Wait until a subscription is as it should be, and return it."""
        with anyio.fail_after(PATIENCE_SECONDS):
            while True:
                found = await self.subscribers.get(made.id)
                if condition(found):
                    return found
                await anyio.sleep(0.02)  # what it waits for is told nobody

    async def until_looked(self):
        """Wait until whoever delivers has looked for those who are still recording events."""
        with anyio.fail_after(PATIENCE_SECONDS):
            while not await self.rows(LOOKED):
                await self.bus.flush()  # what it waits for is told nobody

    async def rows(self, query, *arguments):
        async with self.database.connection() as connection:
            return await connection.fetch(query, *arguments)


@pytest.fixture
async def receiver():
    async with anyio.create_task_group() as group:
        receiver = Receiver()
        await group.start(receiver.serve)
        yield receiver
        group.cancel_scope.cancel()


@pytest.fixture
async def manager(database, bus):
    stopping = anyio.Event()
    manager = Manager(database=database, bus=bus)
    async with anyio.create_task_group() as group:
        await group.start(manager.run, stopping)
        yield manager
        stopping.set()


@pytest.fixture
def subscribers(database, tmp_path):
    return Subscribers(database, Connections(database, KeyFile(tmp_path / "keys")))


@pytest.fixture
def serving(database, bus, subscribers):
    """Run a service; it is told to stop at the end of the block."""

    @asynccontextmanager
    async def run(owner="one", *, allow_private=True, over=None, **settings):
        lease = Lease(database, SUBSCRIPTIONS, owner)
        service = Subscriptions(
            subscribers=subscribers,
            deliveries=Deliveries(database, lease),
            lease=lease,
            bus=over or bus,
            settings=SubscriptionsSettings(
                **{"retry_seconds": QUICK, "sweep_seconds": 0.5, "drain_seconds": 0.2, **settings}
            ),
            allow_private=allow_private,
        )
        stopping = anyio.Event()
        async with anyio.create_task_group() as group:
            await group.start(service.run, stopping)
            yield group.cancel_scope
            stopping.set()

    return run


@pytest.fixture
async def idle(database, bus, manager, receiver, subscribers):
    """All but a service that delivers."""
    return Rig(database, bus, manager, receiver, subscribers)


@pytest.fixture
async def rig(idle, serving):
    async with serving():
        yield idle
