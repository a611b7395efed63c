from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import msgspec
import pytest
from pubsubflow_triggers.sql import PostgresNotify, QueryIsTrue
from trigger_rig import beside, fired, payloads

from pubsubflow.errors import DefinitionError, TriggerError

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def connected(url):
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def hang_up(connection):
    """End the connections of triggers as a server that restarts does."""
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'pubsubflow-triggers'"
    )


async def test_query_fires_when_its_answer_becomes_true(postgres_url):
    trigger = QueryIsTrue(
        url=postgres_url, query="SELECT sum(n) > $1, sum(n)::int AS total FROM part", params=(5,)
    )
    async with connected(postgres_url) as connection:
        await connection.execute("CREATE TABLE part (n int)")
        async with beside(trigger) as ctx:
            await ctx.until("sleep", 2)
            await connection.execute("INSERT INTO part VALUES (4), (3)")
    assert [event.payload for event in ctx.events] == [{"?column?": True, "total": 7}]


async def test_query_fires_once_for_one_row_also_after_a_restart(postgres_url):
    trigger = QueryIsTrue(url=postgres_url, query="SELECT count(*)::int AS rows FROM part")
    async with connected(postgres_url) as connection:
        await connection.execute("CREATE TABLE part (n int); INSERT INTO part VALUES (1)")
        async with beside(trigger, position={"rows": 1}) as ctx:
            await ctx.until("sleep", 3)
            await connection.execute("INSERT INTO part VALUES (2)")
    assert [(event.payload, event.position) for event in ctx.events] == [({"rows": 2},) * 2]


async def test_query_fires_again_after_it_was_not_true(postgres_url):
    trigger = QueryIsTrue(url=postgres_url, query="SELECT 1 AS one FROM part")
    async with connected(postgres_url) as connection:
        await connection.execute("CREATE TABLE part (n int); INSERT INTO part VALUES (1)")
        async with beside(trigger, 2) as ctx:
            await ctx.until("sleep", 2)
            await connection.execute("DELETE FROM part")
            await ctx.until("sleep", ctx.seen["sleep"] + 2)
            await connection.execute("INSERT INTO part VALUES (1)")
    assert [event.payload for event in ctx.events] == [{"one": 1}] * 2


async def test_values_that_json_has_not_become_text(postgres_url):
    query = "SELECT true AS t, 1.50::numeric AS price, '10.0.0.0/8'::cidr AS net, NULL AS nothing"
    (row,) = await payloads(QueryIsTrue(url=postgres_url, query=query))
    assert row == {"t": True, "price": "1.50", "net": "10.0.0.0/8", "nothing": None}


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT $1::int", "expects 1 argument"),
        ("CREATE TABLE t (n int)", "read-only transaction"),
    ],
)
async def test_query_that_can_never_be_answered_fails(postgres_url, query, text):
    with pytest.raises(TriggerError, match=text):
        await fired(QueryIsTrue(url=postgres_url, query=query))


async def test_wrong_password_fails(servers, postgres_url):
    wrong = postgres_url.replace(servers.postgres.password, "wrong")
    with pytest.raises(TriggerError, match="password authentication failed"):
        await fired(QueryIsTrue(url=wrong, query="SELECT 1"))


async def test_server_that_is_away_is_waited_for(tmp_path):
    away = f"postgres://nobody@/none?host={tmp_path}"
    async with beside(QueryIsTrue(url=away, query="SELECT 1")) as ctx:
        await ctx.until("trigger.server_away", 3)
        ctx.stop()
    assert [fields["retry_in"] for _, fields in ctx.logged[:3]] == [0.5, 1, 2]


async def test_url_may_be_named_by_a_variable(postgres_url, monkeypatch):
    monkeypatch.setenv("WAREHOUSE_URL", postgres_url)
    assert await payloads(QueryIsTrue(url="env:WAREHOUSE_URL", query="SELECT 1 AS n")) == [{"n": 1}]


async def test_notifications_come_in_order_with_their_json(postgres_url):
    async with (
        connected(postgres_url) as connection,
        beside(PostgresNotify(url=postgres_url, channel="News Today"), 2) as ctx,
    ):
        await ctx.until("postgres.listening")
        await connection.execute(
            """NOTIFY "News Today", '{"rows": 3}'; NOTIFY "News Today", 'hi'"""
        )
        pid = connection.get_server_pid()
    assert [event.payload for event in ctx.events] == [
        {"channel": "News Today", "data": {"rows": 3}, "pid": pid},
        {"channel": "News Today", "data": "hi", "pid": pid},
    ]


async def test_notify_listens_again_when_its_connection_is_lost(postgres_url):
    async with (
        connected(postgres_url) as connection,
        beside(PostgresNotify(url=postgres_url, channel="news")) as ctx,
    ):
        await ctx.until("postgres.listening")
        await hang_up(connection)
        await ctx.until("postgres.listening", 2)
        await connection.execute("NOTIFY news, 'again'")
    assert ctx.events[0].payload["data"] == "again"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: QueryIsTrue(url="mysql://x", query="SELECT 1"), "url must be postgres"),
        (lambda: QueryIsTrue(url="postgres://x", query=" "), "query is empty"),
        (
            lambda: QueryIsTrue(url="postgres://x", query="SELECT 1", interval=timedelta(0)),
            "interval must be at least",
        ),
        (lambda: PostgresNotify(url="postgres://x", channel=""), "channel must have"),
    ],
)
def test_impossible_fields_are_refused(make, text):
    with pytest.raises(DefinitionError, match=text):
        make()


def test_equal_triggers_share_and_travel():
    one = QueryIsTrue(url="postgres://x", query="SELECT $1", params=(1, "a"))
    other = QueryIsTrue(url="postgres://x", query="SELECT $1", params=(2, "a"))
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=QueryIsTrue)
    assert again == one
    assert again.share_key() == one.share_key() != other.share_key()
