"""Upgrades of the schema: whatever the order of what was applied, it ends as a new one does."""

import asyncpg
import pytest
from msgspec.structs import replace

from pubsubflow.store import migrate as module
from pubsubflow.store.database import Database
from pubsubflow.store.migrate import load_migrations, migrate
from pubsubflow.store.servers.settings import PostgresSettings
from support.schema import describe_schema

pytestmark = pytest.mark.anyio
DATA = """
INSERT INTO worker (worker, host, pid, slots, busy) VALUES ('w', 'h', 1, 8, 0);
INSERT INTO dataset (uri) VALUES ('x://a');
INSERT INTO event (id, event_id, dataset, extra, time, source)
VALUES (1, gen_random_uuid(), 1, '{}', now(), 'api');
INSERT INTO dag (dag_id, file) VALUES ('d', 'd.py');
INSERT INTO dag_state (dag, version) VALUES (1, 1);
INSERT INTO condition_state (dag, partition_key, state, open) VALUES (1, '', '', false);
INSERT INTO run (id, run_id, dag, version, run_key, kind, state, params, cause)
VALUES (1000, gen_random_uuid(), 1, 1, 'k', 'manual', 'success', '{}', 'c');
INSERT INTO task (run, node, map_index, attempt, state, ended_at)
VALUES (1000, 0, -1, 1, 'success', now());
SELECT open_slice('event'), open_slice('run');
"""


@pytest.fixture
async def former(servers, monkeypatch):
    """A database of schema 1 with data in it, and slices that were opened since."""
    admin = await asyncpg.connect(servers.postgres.dsn)
    await admin.execute("DROP DATABASE IF EXISTS former")
    await admin.execute("CREATE DATABASE former")
    await admin.close()
    settings = PostgresSettings(url=replace(servers.postgres, database="former").dsn)
    async with Database.open(settings) as database:
        await apply(database, monkeypatch, load_migrations()[:1])
        connection = await asyncpg.connect(settings.url)
        await connection.execute(DATA)
        await connection.close()
        yield database, settings.url


async def apply(database, monkeypatch, migrations):
    with monkeypatch.context() as patch:
        patch.setattr(module, "load_migrations", lambda: migrations)
        return await migrate(database)


async def fresh_schema(postgres):
    """Return the schema of a new database, with the same slices."""
    connection = await asyncpg.connect(postgres.url)
    await connection.execute("SELECT open_slice('event'), open_slice('run')")
    await connection.close()
    return await describe_schema(postgres.url)


@pytest.mark.parametrize("order", ["by number", "as they landed"])
async def test_a_database_of_schema_1_becomes_as_a_new_one(former, postgres, monkeypatch, order):
    database, url = former
    first, *later = load_migrations()
    if order == "by number":
        assert await migrate(database) == [each.name for each in later]
    else:  # a database of a developer, which has had later ones before earlier ones
        for each in reversed(later):
            await apply(database, monkeypatch, [first, each])
        assert await migrate(database) == []
    upgraded, new = await describe_schema(url), await fresh_schema(postgres)
    for part, found in upgraded.items():
        assert found == new[part], part
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT version FROM worker") == ""
    assert await connection.fetchval("SELECT protocol FROM worker") == 1
    assert await connection.fetchval("SELECT count(*) FROM event") == 1
    assert await connection.fetchval("SELECT count(*) FROM task") == 1
    await connection.close()
