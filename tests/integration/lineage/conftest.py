"""A real manager, a real endpoint, and lineage between them."""

from contextlib import asynccontextmanager

import anyio
import pytest
from lineage_rig import Endpoint, Rig

from pubsubflow.lineage import Lineage, LineageSettings, Pace
from pubsubflow.manager import Manager
from pubsubflow.store.timers import Timers
from pubsubflow.timers import Clock

PATIENT = Pace(delays_seconds=(0.01, 0.05), return_seconds=0.05, max_return_seconds=0.2)


@pytest.fixture
async def endpoint(anyio_backend):
    endpoint = Endpoint()
    async with anyio.create_task_group() as group:
        await group.start(endpoint.serve)
        yield endpoint
        group.cancel_scope.cancel()


@pytest.fixture
async def rig(database, bus):
    stopping = anyio.Event()
    manager = Manager(database=database, bus=bus)
    clock = Clock(timers=Timers(database), bus=bus, calls=manager)
    rig = Rig(manager, bus, database)
    async with await bus.subscribe("psf.>", rig.hear), anyio.create_task_group() as group:
        await group.start(manager.run, stopping)
        await group.start(clock.run, stopping)
        yield rig
        stopping.set()


@pytest.fixture
def telling(database, bus, endpoint):
    """Tell the endpoint of runs, for the length of a block."""

    @asynccontextmanager
    async def running(**more):
        settings = LineageSettings(url=endpoint.url, **{"timeout_seconds": 0.3, **more})
        stopping = anyio.Event()
        service = Lineage(database=database, bus=bus, settings=settings, pace=PATIENT)
        async with anyio.create_task_group() as group:
            await group.start(service.run, stopping)
            yield service
            stopping.set()

    return running


@pytest.fixture
async def lineage(telling):
    async with telling() as service:
        yield service
