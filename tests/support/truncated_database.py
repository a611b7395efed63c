"""Fixtures of one database for many tests: truncating it is ten times faster than cloning."""

import asyncpg
import pytest
from msgspec.structs import replace

from pubsubflow.store.servers.settings import PostgresSettings

_TRUNCATE = """
DO $$ BEGIN
    EXECUTE (
        SELECT 'TRUNCATE ' || string_agg(quote_ident(tablename), ', ') || ' RESTART IDENTITY'
        FROM pg_tables
        WHERE schemaname = 'public' AND tablename NOT IN ('migration', 'slice', 'store_epoch')
    );
    UPDATE store_epoch SET number = 0, identity = NULL;
END $$
"""


@pytest.fixture(scope="session")
async def truncated_database(servers):
    connection = await asyncpg.connect(servers.postgres.dsn)
    if not await connection.fetchval(
        "SELECT count(*) FROM pg_database WHERE datname = 'truncated'"
    ):
        await connection.execute("CREATE DATABASE truncated TEMPLATE template_psf")
    await connection.close()
    return replace(servers.postgres, database="truncated").dsn


@pytest.fixture(name="postgres")
async def truncated(truncated_database):
    """Settings for the shared database, empty but for its schema."""
    connection = await asyncpg.connect(truncated_database)
    await connection.execute(_TRUNCATE)
    await connection.close()
    return PostgresSettings(url=truncated_database)
