"""A real manager and API on real servers."""

from contextlib import asynccontextmanager

import aiohttp
import anyio
import pytest
from api_rig import Rig

from pubsubflow.api import Api, ApiSettings
from pubsubflow.manager import Manager
from pubsubflow.store.reading import Reading


@pytest.fixture
def serve(manager, database, bus):
    """Serve with other settings; the server stops with its block."""

    @asynccontextmanager
    async def serving(settings=None, **more):
        stopping = anyio.Event()
        api = Api(
            calls=manager,
            reading=Reading(database),
            bus=bus,
            settings=settings or ApiSettings(port=0),
            **more,
        )
        async with anyio.create_task_group() as group:
            await group.start(api.run, stopping)
            yield api, stopping
            stopping.set()

    return serving


@pytest.fixture
async def manager(database, bus):
    stopping = anyio.Event()
    manager = Manager(database=database, bus=bus)
    async with anyio.create_task_group() as group:
        await group.start(manager.run, stopping)
        yield manager
        stopping.set()


@pytest.fixture
async def rig(serve, database, bus):
    async with serve() as (api, _), aiohttp.ClientSession() as session:
        yield Rig(api.url, session, bus, database)
