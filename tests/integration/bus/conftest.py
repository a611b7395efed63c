"""A nats-server for each test, and a connection to it."""

import anyio
import pytest

from pubsubflow.bus import Bus
from support.servers import NatsServer, find_free_ports
from support.signals import CallRecorder


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def free_ports():
    return find_free_ports


@pytest.fixture
def make_server(tmp_path):
    """Make servers that are not started yet; all are stopped at the end."""
    servers = []

    def make(**options):
        folder = tmp_path / f"server{len(servers)}"
        folder.mkdir()
        servers.append(NatsServer(folder, **options))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def start_nats(make_server):
    """Start a nats-server that listens on a port, with these lines in its configuration."""

    def start(port, lines):
        server = make_server(port=port, lines=lines)
        server.start()
        return server

    return start


@pytest.fixture
def server(make_server):
    server = make_server()
    server.start()
    return server


@pytest.fixture
async def bus(server):
    async with Bus.connect(server.settings) as bus:
        await bus.ensure_streams()
        yield bus


@pytest.fixture
async def group():
    """A task group for services; cancelled at the end."""
    async with anyio.create_task_group() as group:
        yield group
        group.cancel_scope.cancel()


@pytest.fixture
def collector():
    return CallRecorder
