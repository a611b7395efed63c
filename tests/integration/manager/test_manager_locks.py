"""Locks that wait: what is read under them is as the transaction that held them has left it."""

from contextlib import asynccontextmanager

import anyio
import asyncpg
import pytest

from pubsubflow.errors import StoreLocked
from pubsubflow.manager.batch import BatchProcessor
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.model.wire.commands import StartRun
from pubsubflow.store.batches.manager_transaction import ManagerTransaction
from pubsubflow.store.database import begin_transaction
from pubsubflow.store.named_queries import SQL
from support.harness import post, process_batch
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


async def test_of_a_run_that_who_had_locked_it_has_ended_nothing_is_read(harness, postgres):
    await harness.load(dag("d", task("t")))
    await harness.call(StartRun("d"))
    run = await harness.value("SELECT run FROM run_live")
    async with other_manager(postgres) as other:
        await other.execute("DELETE FROM task_live")
        await other.execute("DELETE FROM run_live")
        found, _ = await locked_after(
            harness, other, lambda transaction: transaction.lock_runs([run], {(run, 0, -1)})
        )
    assert found == ([], [])


async def test_a_task_that_who_had_locked_its_run_has_made_is_read(harness, postgres):
    await harness.load(dag("d", task("t"), task("u", "t")))
    await harness.call(StartRun("d"))
    run = await harness.value("SELECT run FROM run_live")
    async with other_manager(postgres) as other:
        await other.execute("SELECT FROM run_live FOR UPDATE")
        await other.execute("UPDATE task_live SET node = 1")
        (_, tasks), _ = await locked_after(
            harness,
            other,
            lambda transaction: transaction.lock_runs([run], {(run, 0, -1), (run, 1, -1)}),
        )
    assert [row["node"] for row in tasks] == [1]


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


async def test_a_wait_that_was_made_before_the_event_is_known(harness, postgres):
    await harness.load(dag("d", task("t"), on="a"))
    await harness.call(StartRun("d"))
    dataset = await harness.value("SELECT id FROM dataset WHERE uri = $1", uri("a"))
    wait = """
        INSERT INTO event_wait (trigger, dataset, since, checked_until, run, node, map_index,
                                delivery, wait_index)
        SELECT 1, $1, now(), 0, run, node, map_index, delivery, 0 FROM task_live
    """
    async with other_manager(postgres) as other:
        await other.execute("LOCK TABLE event_wait IN ACCESS EXCLUSIVE MODE")
        await other.execute(wait, dataset)
        found, _ = await locked_after(
            harness, other, lambda transaction: transaction.lock_dag_states([dataset], [], 1)
        )
    assert found.awaited is True


async def test_two_inputs_that_meet_at_the_lock_start_a_run(harness):
    await harness.load(dag("d", task("t"), on="a & b"))
    first, second = BatchProcessor(), BatchProcessor()
    async with anyio.create_task_group() as group, harness.database.connection() as connection:
        async with begin_transaction(connection):
            await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            item = InboxItem(post("a"), done=print, failed=print)
            batch = await first.process([item], ManagerTransaction(connection))
            group.start_soon(process_batch, harness.database, second, post("b"))
            await harness.until_value(WAITING)
        first.committed(batch)
    assert await harness.value("SELECT count(*) FROM run") == 1
    assert await harness.value("SELECT count(*) FROM pending_event") == 0


async def test_a_dag_that_subscribes_meanwhile_is_not_decided_for_without_its_lock(
    harness, postgres
):
    await harness.load(dag("d", task("t"), on="a"), dag("e", task("t"), on="b"))
    dataset = await harness.value("SELECT id FROM dataset WHERE uri = $1", uri("a"))
    number = await harness.value("SELECT id FROM dag WHERE dag_id = 'e'")
    async with other_manager(postgres) as other, anyio.create_task_group() as group:
        await other.execute("SELECT FROM dag_state FOR UPDATE")
        await other.execute(
            "INSERT INTO dag_subscription (dataset, dag) VALUES ($1, $2)", dataset, number
        )
        group.start_soon(process_batch, harness.database, BatchProcessor(), post("a"))
        await harness.until_value(WAITING)
        await other.execute("COMMIT")
    runs = await harness.rows("SELECT dag_id FROM run JOIN dag ON dag.id = run.dag")
    assert [dag_id for (dag_id,) in runs] == ["d"]


async def test_a_lock_that_is_refused_takes_no_ids_and_leaves_the_connection(harness, postgres):
    await harness.load(dag("d", task("t"), on="a"))
    dataset = await harness.value("SELECT id FROM dataset WHERE uri = $1", uri("a"))

    async def number_at_once(connection, count):
        async with begin_transaction(connection):
            await connection.execute("SET LOCAL lock_timeout = 1")
            return await ManagerTransaction(connection).lock_dag_states([dataset], [], count)

    async with other_manager(postgres) as other, harness.database.connection() as connection:
        last = await other.fetchval("SELECT nextval('event_id')")
        await other.execute("SELECT FROM dag_state FOR UPDATE")
        with pytest.raises(StoreLocked):
            await number_at_once(connection, 5)
        await other.execute("COMMIT")
        found = await number_at_once(connection, 1)
    assert found.event_ids == [last + 1]


async def test_a_manager_has_its_statements_planned_once_and_compiled_never(postgres):
    connection = await asyncpg.connect(postgres.url, server_settings={"jit": "on"})
    try:
        await connection.execute(SQL["use_generic_plans"])
        settings = [
            await connection.fetchval(f"SHOW {name}") for name in ("plan_cache_mode", "jit")
        ]
    finally:
        await connection.close()
    assert settings == ["force_generic_plan", "off"]
