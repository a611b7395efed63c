"""The connection to Postgres: what is worth a retry and what is not."""

import re
from datetime import UTC, datetime
from uuid import UUID

import anyio
import asyncpg
import msgspec
import pytest

from pubsubflow.errors import ConfigError, StoreConflict, StoreUnavailable
from pubsubflow.store.batches.manager_transaction import ManagerTransaction
from pubsubflow.store.batches.statements import BATCH, batch_statement, remembered_statement
from pubsubflow.store.database import Database, begin_transaction
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.servers.array_types import ARRAY_TYPES
from pubsubflow.store.servers.settings import PostgresSettings
from pubsubflow.store.triggers import LeaseChecksum, TriggerLeases
from support.truncated_database import truncated, truncated_database  # noqa: F401 - fixtures

pytestmark = pytest.mark.anyio


async def test_json_comes_back_as_it_was_but_for_nul(database):
    values = [
        {"a": [1, None, 'é\\u0000 \\ "']},
        {"a": "\x00"},
        {"a": ["\\\x00", "\\\\u0000"]},
        {"\x00": 1},
    ]
    async with database.connection() as connection:
        read = [await connection.fetchval("SELECT $1::jsonb", value) for value in values]
        many = await connection.fetchval("SELECT $1::jsonb[]", values)
    assert read == many
    assert read == [
        values[0],
        {"a": "\\u0000"},
        {"a": ["\\\\u0000", "\\\\u0000"]},
        {"\\u0000": 1},
    ]


@pytest.mark.parametrize(
    "state",
    ["57P01", "57P02", "57P03", "57014", "53100", "53200", "53300", "58030", "25006", "08006"],
)
async def test_a_server_in_trouble_is_worth_a_retry(database, state):
    with pytest.raises(StoreUnavailable):
        async with database.connection() as connection:
            await connection.execute(f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$")


@pytest.mark.parametrize("state", ["40P01", "40001"])
async def test_a_transaction_that_gave_way_is_worth_a_retry(database, state):
    raised = f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$"

    async def conflict() -> None:
        async with database.transaction() as connection:
            await connection.execute("CREATE TABLE left_behind ()")
            await connection.execute(raised)

    with pytest.raises(StoreConflict, match="in favour of another"):
        await conflict()
    with pytest.raises(StoreConflict):
        async with database.connection() as connection:
            await connection.execute(raised)
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT to_regclass('left_behind')") is None


@pytest.mark.parametrize("state", ["23505", "22P05", "54000", "XX000"])
async def test_a_statement_that_cannot_be_is_not(database, state):
    with pytest.raises(asyncpg.PostgresError) as raised:
        async with database.connection() as connection:
            await connection.execute(f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$")
    assert raised.value.sqlstate == state


async def test_a_value_that_does_not_fit_its_type_is_no_outage(database):
    with pytest.raises(asyncpg.DataError, match="int32"):
        async with database.connection() as connection:
            await connection.fetchval("SELECT $1::int", 2**40)


async def test_a_connection_that_is_killed_is_replaced(database):
    with pytest.raises(StoreUnavailable):
        async with database.connection() as connection:
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_a_transaction_that_is_cancelled_leaves_nothing_and_its_connection(postgres):
    one = msgspec.structs.replace(postgres, pool_max_size=1)
    async with Database.open(one) as database:
        with anyio.move_on_after(0.05):
            async with database.transaction() as connection:
                await connection.execute(
                    "INSERT INTO idempotency_key VALUES ('k', gen_random_uuid())"
                )
                await connection.execute("SELECT pg_sleep(60)")
        with anyio.fail_after(20):
            async with database.connection() as connection, begin_transaction(connection):
                assert await connection.fetchval("SELECT count(*) FROM idempotency_key") == 0


async def test_a_server_that_is_not_there_is_said_to_be(tmp_path):
    settings = PostgresSettings(url=f"postgres://u@/d?host={tmp_path}", connect_seconds=0.05)
    with pytest.raises(StoreUnavailable, match="out of reach"):
        async with Database.open(settings):
            pass


@pytest.mark.parametrize(
    ("right", "wrong"), [("//[a-z]+:", "//nobody:"), ("/truncated", "/missing")]
)
async def test_a_wrong_account_or_database_is_a_mistake_of_the_configuration(
    postgres, right, wrong
):
    url = re.sub(right, wrong, postgres.url)
    assert url != postgres.url
    with pytest.raises(ConfigError, match=r"postgres\.url"):
        async with Database.open(PostgresSettings(url=url)):
            pass


async def test_a_url_that_is_none_is_a_mistake_of_the_configuration():
    with pytest.raises(ConfigError, match=r"postgres\.url"):
        async with Database.open(PostgresSettings(url="mysql://x")):
            pass


async def test_what_outlives_a_transaction_ends_with_its_session(database):
    """Also by an error; other connections go back to the pool without a further statement."""

    async def fail():
        async with database.session() as connection:
            await connection.execute("SELECT pg_advisory_lock(4711)")
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    async with database.connection() as connection:
        assert not await connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711)"
        )
        await connection.execute("SET application_name = 'kept'")
    async with database.connection() as connection:
        assert await connection.fetchval("SHOW application_name") == "kept"
    async with database.session():
        pass


async def test_heartbeats_are_not_waited_for_on_the_disk(database):
    leases = TriggerLeases(database, "t")
    await leases.register(host="h", pid=1, capacity=1)
    beat = ("w", "h", 1, 2, 0, "default", 1, 1, "1", 1, 1, 1.0, 1, 1.0)
    for query, rows in (("heartbeat_triggerer", [("t", 3)]), ("save_heartbeats", [beat])):
        async with database.transaction() as connection:
            await connection.execute("SET LOCAL synchronous_commit = 'remote_apply'")
            if query == "save_heartbeats":
                await ManagerTransaction(connection).write(query, rows)
            else:
                await connection.fetchrow(SQL[query], *rows[0])
            assert await connection.fetchval("SHOW synchronous_commit") == "off"
    async with database.connection() as connection:
        assert len(await connection.fetch("SELECT worker FROM worker")) == 1


async def test_a_heartbeat_says_who_lives_and_what_is_leased(database):
    leases = TriggerLeases(database, "t")
    await leases.register(host="h", pid=1, capacity=1)
    assert await leases.heartbeat(1) == (1, LeaseChecksum(0, 0, 0))
    assert not await leases.has_claimable()
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO trigger (kind, name, data, owner, epoch)"
            " VALUES ('watch', 'a', '', 't', 3), ('watch', 'b', '', NULL, 1)"
        )
    found = await leases.heartbeat(1)
    assert (found[0], found[1].number, found[1].epochs) == (1, 1, 3)
    assert await leases.has_claimable()
    await leases.claim(5)
    assert not await leases.has_claimable()
    await leases.deregister()
    assert await leases.heartbeat(1) == (0, LeaseChecksum(0, 0, 0))


FILTERED = "SELECT count(*) FROM dag WHERE $1::text IS NULL OR dag_id = $1"
PLANS = "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement = $1"


async def test_a_search_is_planned_for_its_parameters_however_often(database):
    async with database.search() as connection:
        for _ in range(8):
            await connection.fetchval(FILTERED, None)
        plans = await connection.fetchrow(PLANS, FILTERED)
    assert tuple(plans) == (0, 8)


@pytest.mark.parametrize("fails", ["SELECT 1 / 0", "SELECT pg_sleep(60)"])
async def test_a_search_leaves_its_connection_as_it_was_also_if_it_fails(database, fails):
    async with database.connection() as connection:
        before = await connection.fetchval("SELECT pg_backend_pid()")
    with anyio.move_on_after(0.2), pytest.raises(asyncpg.PostgresError):
        async with database.search() as connection:
            await connection.execute(fails)
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT pg_backend_pid()") == before
        assert not connection.is_in_transaction()
        assert await connection.fetchval("SHOW plan_cache_mode") == "auto"


async def test_a_search_whose_connection_is_killed_is_an_outage(database):
    with pytest.raises(StoreUnavailable):
        async with database.search() as connection:
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    async with database.search() as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_no_statement_needs_a_look_at_the_types_of_the_server(database, monkeypatch):
    """Such a look takes a connection longer than all else that it begins with."""

    async def refuse(_connection, types, _timeout):
        raise AssertionError(types)

    async with database.connection() as connection:
        catalog = await connection.fetch(
            "SELECT typname::text AS name, typarray::int AS array, oid::int AS element"
            " FROM pg_type WHERE typname = ANY($1::text[])",
            list(ARRAY_TYPES),
        )
        assert {row["name"]: (row["array"], row["element"]) for row in catalog} == ARRAY_TYPES
        monkeypatch.setattr(asyncpg.Connection, "_introspect_types", refuse)
        builders = (batch_statement, remembered_statement)
        built = [build(BATCH, single=single) for build in builders for single in (False, True)]
        for query in (*SQL.values(), *built):
            await connection.prepare(query)


async def test_arrays_of_all_types_come_back(database):
    moment = datetime(2026, 11, 30, 1, 2, 3, tzinfo=UTC)
    values = {
        "bool": [True, None],
        "bytea": [b"\x00\xff", b""],
        "int2": [-1, 32767],
        "int4": [-1, None, 2**31 - 1],
        "int8": [-(2**63), 2**63 - 1],
        "float8": [0.5, None],
        "xid": [3, None, 2**32 - 1],
        "timestamptz": [moment, None],
        "uuid": [UUID(int=1)],
        "jsonb": [{"a": [1, None]}, None, 'é,{}"'],
    }
    assert values.keys() == ARRAY_TYPES.keys()
    async with database.connection() as connection:
        for name, array in values.items():
            assert await connection.fetchval(f"SELECT $1::{name}[]", array) == array


async def test_loops_that_take_turns_share_one_connection_and_outlast_one_that_holds_it(database):
    seen: list[int] = []

    async def look() -> None:
        async with database.in_turn.connection() as connection:
            seen.append(await connection.fetchval("SELECT pg_backend_pid()"))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(look)
    assert len(seen) == 5
    assert len({*seen}) == 1
    async with database.in_turn.connection() as held:
        await look()  # takes a further one after a while, also within the same task
        assert seen[-1] != await held.fetchval("SELECT pg_backend_pid()")
    with anyio.CancelScope() as scope:
        async with database.in_turn.connection():
            scope.cancel()
            await anyio.sleep_forever()
    await look()
    async with anyio.create_task_group() as group:  # a turn that was cancelled is free again
        group.start_soon(look)
        group.start_soon(look)
    assert seen[-1] == seen[-2]
