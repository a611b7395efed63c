"""Managers on real servers, and a worker moved by hand."""

import asyncpg
import pytest
from core_rig import running
from msgspec.structs import replace

from pubsubflow.store.database import PostgresSettings

_EMPTY = """
DO $$ BEGIN
    EXECUTE (
        SELECT 'TRUNCATE ' || string_agg(quote_ident(tablename), ', ') || ' RESTART IDENTITY'
        FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'migration'
    );
END $$
"""


@pytest.fixture(scope="session")
async def managers_database(servers):
    """One database for these tests: emptying it is ten times faster than cloning it."""
    connection = await asyncpg.connect(servers.postgres.dsn)
    await connection.execute("CREATE DATABASE managers TEMPLATE template_psf")
    await connection.close()
    return replace(servers.postgres, database="managers").dsn


@pytest.fixture
async def postgres(managers_database):
    connection = await asyncpg.connect(managers_database)
    await connection.execute(_EMPTY)
    await connection.close()
    return PostgresSettings(url=managers_database)


@pytest.fixture
async def rig(database, bus, nats):
    async with running(database, bus, nats) as rig:
        yield rig


@pytest.fixture
async def pair(database, bus, nats):
    """Two managers that share the work."""
    async with running(database, bus, nats, managers=2) as rig:
        yield rig
