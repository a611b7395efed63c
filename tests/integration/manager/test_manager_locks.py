"""Locks that wait: what is read under them is as the transaction that held them has left it."""

from contextlib import asynccontextmanager

import anyio
import asyncpg
import pytest

from pubsubflow.model.wire.commands import StartRun
from pubsubflow.store.database import begin_transaction
from pubsubflow.store.manager_transaction import ManagerTransaction
from support.harness import post
from support.specs import dag, task, uri

pytestmark = pytest.mark.anyio

WAITING = """
SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
"""


@asynccontextmanager
async def other_manager(postgres):
    """Give a connection in a transaction; its locks are held until that is committed."""
    connection = await asyncpg.connect(postgres.url)
    try:
        await connection.execute("BEGIN")
        yield connection
    finally:
        await connection.close()


async def locked_after(harness, other, lock):
    """Call a function with a transaction that waits for another one, which is committed then.

    Returns:
        What it returned, and the event id that the other one took last.
    """
    found = []

    async def wait() -> None:
        async with harness.database.connection() as connection, begin_transaction(connection):
            found.append(await lock(ManagerTransaction(connection)))

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await harness.until_value(WAITING)
        last = await other.fetchval("SELECT nextval('event_id')")
        await other.execute("COMMIT")
    return found[0], last


async def test_a_task_is_read_as_it_was_left_by_who_had_locked_its_run(harness, postgres):
    await harness.load(dag("d", task("t")))
    await harness.call(StartRun("d"))
    run = await harness.value("SELECT run FROM run_live")
    async with other_manager(postgres) as other:
        await other.execute("SELECT FROM run_live FOR UPDATE")
        await other.execute("UPDATE run_live SET progress = 'theirs'")
        await other.execute("UPDATE task_live SET worker = 'w9', state = 'running'")
        (rows, tasks), _ = await locked_after(
            harness, other, lambda transaction: transaction.lock_runs([run], {(run, 0, -1)})
        )
    assert [(row["run"], row["progress"]) for row in rows] == [(run, b"theirs")]
    assert [(row["worker"], row["state"]) for row in tasks] == [("w9", "running")]


async def test_an_event_is_numbered_after_those_of_who_had_locked_its_dag(harness, postgres):
    await harness.load(dag("d", task("t"), on="a & b"))
    await harness.call(post("a"))
    number = await harness.value("SELECT id FROM dag WHERE dag_id = 'd'")
    dataset = await harness.value("SELECT id FROM dataset WHERE uri = $1", uri("b"))
    async with other_manager(postgres) as other:
        await other.execute("SELECT FROM dag_state FOR UPDATE")
        await other.execute("UPDATE dag_state SET queued = 7")
        await other.execute("UPDATE condition_state SET state = 'theirs'")
        found, last = await locked_after(
            harness, other, lambda transaction: transaction.lock_dag_states([dataset], [], 2)
        )
    assert [(row["dag"], row["queued"]) for row in found.dags] == [(number, 7)]
    assert found.conditions[number]["state"] == b"theirs"
    assert found.event_ids == sorted(found.event_ids)
    assert found.event_ids[0] > last
    assert len(found.event_ids) == 2
    assert not found.awaited


async def test_a_dag_without_a_state_of_its_condition_is_known_to_have_none(harness):
    await harness.load(dag("d", task("t"), on="a"), dag("e", task("t"), on="b"))
    dataset = await harness.value("SELECT id FROM dataset WHERE uri = $1", uri("a"))
    async with harness.database.connection() as connection, begin_transaction(connection):
        found = await ManagerTransaction(connection).lock_dag_states([dataset], [], 1)
    number = await harness.value("SELECT id FROM dag WHERE dag_id = 'd'")
    assert {dag: row["state"] for dag, row in found.conditions.items()} == {number: None}
