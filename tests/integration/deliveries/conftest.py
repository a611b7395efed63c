"""The delivery service on real servers, beside a manager and receivers."""

from contextlib import asynccontextmanager

import anyio
import pytest

from pubsubflow.deliveries import DeliveryService, DeliverySettings
from pubsubflow.store.deliveries import Deliveries
from pubsubflow.store.leases import SUBSCRIPTIONS, Lease
from pubsubflow.store.secrets.connections import Connections
from pubsubflow.store.secrets.keyring import Keyring
from pubsubflow.store.subscribers import Subscribers
from support.deliveries import DeliveriesHarness
from support.receiver import QUICK, Receiver


@pytest.fixture
async def receiver(anyio_backend):
    async with Receiver().serving() as receiver:
        yield receiver


@pytest.fixture
def subscribers(database, tmp_path):
    return Subscribers(database, Connections(database, Keyring(tmp_path / "keys")))


@pytest.fixture
def serving(database, bus, subscribers):
    """Run a service; it drains at the end of the block."""

    @asynccontextmanager
    async def run(owner="one", *, allow_private=True, over=None, **settings):
        lease = Lease(database, SUBSCRIPTIONS, owner)
        service = DeliveryService(
            subscribers=subscribers,
            deliveries=Deliveries(database, lease),
            lease=lease,
            bus=over or bus,
            settings=DeliverySettings(
                **{"retry_seconds": QUICK, "sweep_seconds": 0.5, "drain_seconds": 0.2, **settings}
            ),
            allow_private=lambda: allow_private,
        )
        stopping = anyio.Event()
        async with anyio.create_task_group() as group:
            await group.start(service.run, stopping)
            yield group.cancel_scope
            stopping.set()

    return run


@pytest.fixture
async def idle(database, bus, manager, receiver, subscribers):
    """Everything but the delivery service."""
    return DeliveriesHarness(database, bus, manager, receiver, subscribers)


@pytest.fixture
async def harness(idle, serving):
    async with serving():
        yield idle
