"""A real manager and API on real servers."""

from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial

import aiohttp
import anyio
import anyio.lowlevel
import asyncpg
import pytest

from pubsubflow.api import ApiSettings
from pubsubflow.api.routes.alerts import AlertRoutes
from pubsubflow.api.routes.connections import ConnectionRoutes
from pubsubflow.api.routes.metrics import MetricsRoutes
from pubsubflow.api.routes.plugins import PluginRoutes
from pubsubflow.api.routes.reload import ReloadRoutes
from pubsubflow.api.routes.runs.simulations import SimulationRoutes
from pubsubflow.api.routes.state import StateRoutes
from pubsubflow.api.routes.subscriptions import SubscriptionRoutes
from pubsubflow.api.routes.variables import VariableRoutes
from pubsubflow.api.routes.versions.changes import VersionChangeRoutes
from pubsubflow.child_calls.catalogue import PluginCatalogue
from pubsubflow.embedded import EmbeddedServers
from pubsubflow.errors import InvalidInput
from pubsubflow.metrics import ClusterMetrics, Exposition
from pubsubflow.store.alerts.alerts import AlertStore
from pubsubflow.store.database import Database
from pubsubflow.store.read.read_models import ReadModels
from pubsubflow.store.secrets.connections import Connections
from pubsubflow.store.secrets.keyring import Keyring
from pubsubflow.store.secrets.variables import Variables
from pubsubflow.store.servers.settings import PostgresSettings
from pubsubflow.store.subscribers import Subscribers
from pubsubflow.store.values.state import StateStore
from pubsubflow.testing.simulations.order import reply_to
from support.api import ApiHarness, api_on


async def simulate(order, _by):
    """Carry out here what a daemon carries out in another process."""
    reply = reply_to(order)
    if reply.found is None:
        raise InvalidInput(reply.fault)
    return reply.found


@pytest.fixture
def serve(manager, database, bus, tmp_path):
    """Serve with other settings; the server stops with its block."""

    @asynccontextmanager
    async def serving(settings=None, *, connections=None, allow_private=True, **more):
        stopping = anyio.Event()
        connections = connections or Connections(database, Keyring(tmp_path / "keys"))
        subscribers = Subscribers(database, connections)
        cluster = ClusterMetrics(bus=bus, database=database, refresh_seconds=5)
        exposition = Exposition([manager.metrics, database.metrics], cluster)
        models, now = ReadModels(database), partial(datetime.now, UTC)
        further = (
            AlertRoutes(AlertStore(database)),
            ConnectionRoutes(connections, bus),
            VariableRoutes(Variables(database, Keyring(tmp_path / "keys")), bus),
            PluginRoutes(PluginCatalogue()),
            StateRoutes(StateStore(database)),
            SimulationRoutes(models, simulate),
            SubscriptionRoutes(subscribers, bus, allow_private=lambda: allow_private),
            MetricsRoutes(exposition.expose),
            ReloadRoutes(bus),
            VersionChangeRoutes(database, manager, models, bus, now),
        )
        options = {"backlog": manager.backlog, "further": further, **more}
        api = api_on(manager, database, bus, settings, **options)
        async with anyio.create_task_group() as group:
            await group.start(api.run, stopping)
            yield api, stopping
            stopping.set()

    return serving


@pytest.fixture
async def harness(serve, database, bus):
    async with serve() as (api, _), aiohttp.ClientSession() as session:
        harness = ApiHarness(api.url, session, bus, database)
        harness.own_token = api.own_token
        yield harness


@pytest.fixture
def blocked_store(postgres, manager):
    """Block the manager's transactions; gives a function that waits for pending events."""

    @asynccontextmanager
    async def block():
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

    return block


@pytest.fixture
def limited(serve, database, bus):
    """Serve with other settings."""

    @asynccontextmanager
    async def serving(more=None, **settings):
        served = serve(ApiSettings(port=0, **settings), **(more or {}))
        async with served as (api, _), aiohttp.ClientSession() as session:
            harness = ApiHarness(api.url, session, bus, database)
            harness.own_token = api.own_token
            yield harness

    return serving


@pytest.fixture
async def fragile(tmp_path, fresh_home):
    """Servers that the test may stop, and a database in them."""
    async with (
        EmbeddedServers(fresh_home(tmp_path / "home")) as servers,
        Database.open(PostgresSettings(url=servers.postgres.dsn)) as database,
    ):
        yield servers, database
