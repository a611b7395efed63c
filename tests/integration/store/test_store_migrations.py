"""Migrations: numbered, forward only, each remembered."""

import asyncpg
import pytest
from msgspec.structs import replace

from pubsubflow.errors import ConfigError
from pubsubflow.store import migrate as module
from pubsubflow.store.database import Database, PostgresSettings
from pubsubflow.store.migrate import Migration, check, load_migrations, migrate

pytestmark = pytest.mark.anyio
MORE = Migration("9000_more.sql", "CREATE TABLE more (id int);")


@pytest.fixture
async def empty(servers):
    """A database without any table."""
    admin = await asyncpg.connect(servers.postgres.dsn)
    await admin.execute("DROP DATABASE IF EXISTS empty_one")
    await admin.execute("CREATE DATABASE empty_one")
    await admin.close()
    async with Database.open(
        PostgresSettings(url=replace(servers.postgres, database="empty_one").dsn)
    ) as opened:
        yield opened


@pytest.fixture
def more(monkeypatch):
    known = load_migrations()
    monkeypatch.setattr(module, "load_migrations", lambda: [*known, MORE])


async def test_an_empty_database_gets_all_and_then_none(empty):
    names = [each.name for each in load_migrations()]
    assert await check(empty) == names
    assert await migrate(empty) == names
    assert await migrate(empty) == []
    assert await check(empty) == []


async def test_migrations_are_numbered_one_by_one():
    numbers = [int(each.name.split("_")[0]) for each in load_migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_what_is_new_is_applied_alone(database, more):
    assert await check(database) == [MORE.name]
    assert await migrate(database) == [MORE.name]
    assert await check(database) == []


async def test_a_migration_that_fails_leaves_nothing_behind(database, monkeypatch):
    known = load_migrations()
    broken = [Migration("9001_broken.sql", "CREATE TABLE more (id int); SELECT nonsense;")]
    monkeypatch.setattr(module, "load_migrations", lambda: known + broken)
    with pytest.raises(asyncpg.UndefinedColumnError):
        await migrate(database)
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT to_regclass('more')") is None


async def test_a_changed_migration_is_refused(database):
    async with database.connection() as connection:
        await connection.execute("UPDATE migration SET checksum = 'other'")
    for ask in (migrate, check):
        with pytest.raises(ConfigError, match=r"0001_initial\.sql was changed"):
            await ask(database)


async def test_a_newer_database_is_refused(database):
    async with database.connection() as connection:
        await connection.execute("INSERT INTO migration VALUES ('9999_future.sql', 'x')")
    for ask in (migrate, check):
        with pytest.raises(ConfigError, match="upgrade pubsubflow"):
            await ask(database)
