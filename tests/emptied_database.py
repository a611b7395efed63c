"""One database for many tests: emptying it is ten times faster than cloning it."""

import asyncpg
import pytest
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
async def emptied_database(servers):
    connection = await asyncpg.connect(servers.postgres.dsn)
    if not await connection.fetchval("SELECT count(*) FROM pg_database WHERE datname = 'emptied'"):
        await connection.execute("CREATE DATABASE emptied TEMPLATE template_psf")
    await connection.close()
    return replace(servers.postgres, database="emptied").dsn


@pytest.fixture(name="postgres")
async def emptied(emptied_database):
    """Settings for the shared database, empty but for its schema."""
    connection = await asyncpg.connect(emptied_database)
    await connection.execute(_EMPTY)
    await connection.close()
    return PostgresSettings(url=emptied_database)
