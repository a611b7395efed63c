"""A real manager and API on real servers."""

from contextlib import asynccontextmanager

import aiohttp
import anyio
import anyio.lowlevel
import asyncpg
import pytest
from api_rig import Rig, api_on

from pubsubflow.api import ApiSettings
from pubsubflow.api.routes.connections import ConnectionRoutes
from pubsubflow.api.routes.metrics import Metrics
from pubsubflow.api.routes.subscriptions import SubscriptionRoutes
from pubsubflow.embedded import EmbeddedServers
from pubsubflow.manager import Manager
from pubsubflow.metrics import Cluster, Exposition
from pubsubflow.store.database import Database, PostgresSettings
from pubsubflow.store.migrate import migrate
from pubsubflow.store.secrets.connections import Connections
from pubsubflow.store.secrets.keyring import KeyFile
from pubsubflow.store.subscribers import Subscribers


@pytest.fixture
def serve(manager, database, bus, tmp_path):
    """Serve with other settings; the server stops with its block."""

    @asynccontextmanager
    async def serving(settings=None, *, connections=None, allow_private=True, **more):
        stopping = anyio.Event()
        connections = connections or Connections(database, KeyFile(tmp_path / "keys"))
        subscribers = Subscribers(database, connections)
        cluster = Cluster(bus=bus, database=database, refresh_seconds=5)
        exposition = Exposition([manager.figures, database.figures], cluster)
        further = (
            ConnectionRoutes(connections, bus),
            SubscriptionRoutes(subscribers, bus, allow_private=allow_private),
            Metrics(exposition.expose),
        )
        told = {"backlog": manager.backlog, "further": further, **more}
        api = api_on(manager, database, bus, settings, **told)
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
        rig = Rig(api.url, session, bus, database)
        rig.own_token = api.own_token
        yield rig


@pytest.fixture
def stuck(postgres, manager):
    """Let nothing be folded meanwhile, and wait until so many events are called for."""

    @asynccontextmanager
    async def sticking():
        async def pending(events):
            with anyio.fail_after(60):
                while manager.backlog().pending < events:
                    await anyio.lowlevel.checkpoint()

        connection = await asyncpg.connect(postgres.url)
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE event IN SHARE MODE")
                yield pending
        finally:
            await connection.close()

    return sticking


@pytest.fixture
def limited(serve, database, bus):
    """Serve with other settings."""

    @asynccontextmanager
    async def serving(more=None, **settings):
        served = serve(ApiSettings(port=0, **settings), **(more or {}))
        async with served as (api, _), aiohttp.ClientSession() as session:
            rig = Rig(api.url, session, bus, database)
            rig.own_token = api.own_token
            yield rig

    return serving


@pytest.fixture
async def fragile(tmp_path):
    """Servers of the test's own, and a database in them."""
    async with (
        EmbeddedServers(tmp_path / "home") as servers,
        Database.open(PostgresSettings(url=servers.postgres.dsn)) as database,
    ):
        await migrate(database)
        yield servers, database
