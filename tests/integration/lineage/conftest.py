"""A real manager, a real endpoint, and lineage between them."""

from contextlib import asynccontextmanager

import pytest

from pubsubflow.lineage import Lineage, LineageSettings, SendRetryPolicy
from pubsubflow.store.read.timers import Timers
from pubsubflow.timers import TimerService
from support.harness import running
from support.lineage import LineageEndpoint, LineageHarness

PATIENT = SendRetryPolicy(
    delays_seconds=(0.01, 0.05), redeliver_seconds=0.05, max_redeliver_seconds=0.2
)


@pytest.fixture
async def endpoint(anyio_backend):
    endpoint = LineageEndpoint()
    async with endpoint.serving() as url:
        endpoint.url = f"{url}/api/v1/lineage"
        yield endpoint


@pytest.fixture
async def harness(database, bus, manager):
    clock = TimerService(timers=Timers(database), bus=bus, commands=manager)
    harness = LineageHarness(manager, bus, database)
    async with (
        await bus.subscribe("psf.>", harness.signal.notify),
        running(clock),
    ):
        yield harness


@pytest.fixture
def start_lineage(database, bus, endpoint):
    """Run the lineage service for the length of a block."""

    @asynccontextmanager
    async def start(**more):
        settings = LineageSettings(url=endpoint.url, **{"timeout_seconds": 0.3, **more})
        service = Lineage(database=database, bus=bus, settings=settings, retry=PATIENT)
        async with running(service):
            yield service

    return start


@pytest.fixture
async def lineage(start_lineage):
    async with start_lineage() as service:
        yield service
