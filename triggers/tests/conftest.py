"""Real servers for the triggers."""

import itertools

import asyncpg
import pytest

from pubsubflow.embedded import EmbeddedServers

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
async def servers(tmp_path_factory, anyio_backend):
    """Our own Postgres and NATS."""
    async with EmbeddedServers(tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture
async def postgres_url(servers):
    """The address of an empty database."""
    name = f"triggers_{next(_numbers)}"
    connection = await asyncpg.connect(servers.postgres.dsn)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    return servers.postgres.dsn.replace("/pubsubflow?", f"/{name}?")
