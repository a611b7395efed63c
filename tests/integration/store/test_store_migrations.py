"""Migrations: numbered, forward only, each remembered."""

import anyio
import asyncpg
import pytest
import structlog
from msgspec.structs import replace

from pubsubflow.errors import ConfigError
from pubsubflow.store import migrate as module
from pubsubflow.store.database import Database
from pubsubflow.store.migrate import (
    Migration,
    check,
    known_schema,
    load_migrations,
    migrate,
)
from pubsubflow.store.servers.settings import PostgresSettings

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


async def test_every_migration_has_a_number_of_its_own():
    numbers = [each.number for each in load_migrations()]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 1


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


BOTH = Migration("9002_both.sql", "ALTER TABLE run ADD more int; ALTER TABLE dag ADD more int;")
WAITS = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ $1)"


async def test_a_migration_that_meets_a_daemon_the_wrong_way_round_starts_over(
    database, monkeypatch
):
    """A daemon of the version before reads tables in another order: one of the two is ended."""
    known = load_migrations()
    monkeypatch.setattr(module, "load_migrations", lambda: [*known, BOTH])

    async def migrated():
        assert await migrate(database) == [BOTH.name]

    with structlog.testing.capture_logs() as logs:
        async with anyio.create_task_group() as group, database.transaction() as daemon:
            # The migration is the one that Postgres ends: it looks for deadlocks first.
            await daemon.execute("SET LOCAL deadlock_timeout = '60s'")
            await daemon.execute("SELECT FROM dag")
            group.start_soon(migrated)
            async with database.connection() as observer:
                with anyio.fail_after(60):
                    while not await observer.fetchval(WAITS, "^ALTER TABLE run ADD more"):
                        await anyio.lowlevel.checkpoint()
            await daemon.execute("SELECT FROM run")
    assert [each["event"] for each in logs].count("store.migration_restarted") >= 1


async def test_a_changed_migration_is_refused(database):
    async with database.connection() as connection:
        await connection.execute("UPDATE migration SET checksum = 'other'")
    for ask in (migrate, check):
        with pytest.raises(ConfigError, match=r"0001_initial\.sql was changed"):
            await ask(database)


async def add_newer(database, compatible_from):
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO migration (name, checksum, compatible_from)"
            " VALUES ('9999_future.sql', 'x', $1)",
            compatible_from,
        )


async def test_a_newer_database_that_is_compatible_is_left_as_it_is(database):
    await add_newer(database, known_schema())
    assert await check(database) == []
    with structlog.testing.capture_logs() as logs:
        assert await migrate(database) == []
    assert [(each["event"], each["schema"]) for each in logs] == [("store.schema_newer", 9999)]


async def test_a_newer_database_that_is_not_compatible_is_refused(database):
    await add_newer(database, known_schema() + 1)
    for ask in (migrate, check):
        with pytest.raises(ConfigError, match=r"9999_future\.sql of a newer .* upgrade pubsubflow"):
            await ask(database)


async def test_a_database_of_before_compatibility_was_recorded_is_read(database, more):
    async with database.connection() as connection:
        await connection.execute("ALTER TABLE migration DROP COLUMN compatible_from")
    assert await check(database) == [MORE.name]
    assert await migrate(database) == [MORE.name]


async def test_a_migration_says_with_which_daemons_it_is_compatible():
    assert MORE.compatible_from == 1
    assert replace(MORE, text="-- More.\n-- compatible from: 7\n").compatible_from == 7
