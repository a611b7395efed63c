"""Batches decided by remembered rows: whatever changes meanwhile, they come out as under locks."""

from collections import Counter
from contextlib import asynccontextmanager
from functools import partial

import anyio
import asyncpg
import pytest

from pubsubflow.model.wire.commands import SetPaused, SetPool, StartRun
from pubsubflow.model.wire.messages import EmittedEvent, Outcome, encode
from pubsubflow.model.wire.waits import Wait, WaitSet
from pubsubflow.store.batches import remembered
from pubsubflow.store.batches.manager_transaction import ManagerTransaction
from pubsubflow.store.batches.statements import remembered_statement
from support.harness import ManagerHarness, post, running_managers
from support.specs import dag, task, uri

pytestmark = pytest.mark.anyio

EMITTED = (EmittedEvent(uri("b")),)
LEFT = "SELECT (SELECT count(*) FROM run_live) + (SELECT count(*) FROM task_live)"
PAUSE = 7233999
WAITING = """
SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
"""
DISORDERED = """
SELECT count(*) FROM (
    SELECT bool_and(first > before) AS ordered FROM (
        SELECT run, first, lag(last) OVER (PARTITION BY input ORDER BY position) AS before FROM (
            SELECT run, input, min(event) AS first, max(event) AS last,
                   min(min(event)) FILTER (WHERE input = 0) OVER (PARTITION BY run) AS position
            FROM run_event JOIN run ON run.id = run_event.run JOIN dag ON dag.id = run.dag
            WHERE dag.dag_id = 'both' GROUP BY run, input
        ) AS consumed
    ) AS following GROUP BY run
) AS runs WHERE NOT ordered
"""
"""Runs whose events of one input come before those of the run before, by those of the other."""


def outcomes(harness: ManagerHarness) -> Counter[str]:
    """Return how many batches were written from memory, and decided anew."""
    found = Counter({"written": 0, "decided_anew": 0})
    for manager in harness.managers:
        found.update(manager.metrics.remembered_batches())
    return found


async def chain(harness: ManagerHarness) -> None:
    """Load a DAG whose task updates the dataset of another one, and let each run once."""
    await harness.load(
        dag("first", task("t", emits=["b"]), on="a"), dag("second", task("u"), on="b")
    )
    await go_through(harness)


async def go_through(harness: ManagerHarness) -> None:
    await harness.call(post("a"))
    await finish_both(harness)


async def finish_both(harness: ManagerHarness) -> None:
    await harness.finish("t", emits=EMITTED)
    await harness.finish("u")


@asynccontextmanager
async def another(postgres):
    """Give a connection of somebody else."""
    connection = await asyncpg.connect(postgres.url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
def paused(monkeypatch):
    """Have statements wait between the moment that they see and the locks that they take."""
    first = "WHEN (SELECT count(*) FROM claimed)"

    def built(parts, *, single=False):
        text = remembered_statement(parts, single=single)
        assert first in text
        wait = f"pg_advisory_xact_lock({PAUSE}) IS NOT NULL"
        return text.replace(first, first.replace("WHEN", f"WHEN {wait} AND"), 1)

    monkeypatch.setattr(remembered, "remembered_statement", built)
    monkeypatch.setattr(ManagerTransaction, "_statements", {})


async def check_whole(harness: ManagerHarness, runs: int) -> None:
    """Check that each run has ended, and has consumed an event that nothing else has."""
    assert await harness.states() == ["success"] * runs
    assert await harness.value("SELECT count(*) FROM task WHERE state = 'success'") == runs
    assert await harness.value("SELECT count(DISTINCT event) FROM run_event") == runs
    assert await harness.value("SELECT count(*) FROM event") == runs
    assert await harness.value("SELECT count(*) FROM pending_event") == 0
    assert await harness.value("SELECT sum(active) FROM dag_state") == 0
    assert await harness.value(LEFT) == 0


async def test_a_chain_of_dags_is_decided_from_memory_after_its_first_round(harness):
    await chain(harness)
    assert outcomes(harness) == {"written": 0, "decided_anew": 0}
    for _ in range(3):
        await go_through(harness)
    assert outcomes(harness) == {"written": 9, "decided_anew": 0}
    await check_whole(harness, 8)
    rows = await harness.rows("SELECT id FROM event ORDER BY recorded_at")
    assert [row["id"] for row in rows] == list(range(rows[0]["id"], rows[0]["id"] + 8))


BETWEEN = {
    "run": "UPDATE run_live SET info = info",
    "task": "UPDATE task_live SET crashes = crashes",
    "states of DAGs": "UPDATE dag_state SET edits = edits + 1",
    "state of the run's DAG": (
        "UPDATE dag_state SET edits = 1 WHERE dag = (SELECT dag FROM run_live)"
    ),
    "conditions": "UPDATE condition_state SET open = open",
}


@pytest.mark.parametrize("change", BETWEEN.values(), ids=BETWEEN)
async def test_what_was_changed_before_is_seen(harness, postgres, change):
    await chain(harness)
    await harness.call(post("a"))
    async with another(postgres) as other:
        await other.execute(change)
    await finish_both(harness)
    assert outcomes(harness)["decided_anew"] == 1
    await go_through(harness)
    await go_through(harness)
    await check_whole(harness, 8)


@pytest.mark.parametrize("change", BETWEEN.values(), ids=BETWEEN)
async def test_what_is_changed_while_the_statement_runs_is_seen(harness, postgres, paused, change):
    await chain(harness)
    await harness.call(post("a"))
    async with another(postgres) as other, anyio.create_task_group() as group:
        await other.execute("SELECT pg_advisory_lock($1)", PAUSE)
        group.start_soon(partial(harness.finish, "t", emits=EMITTED))
        await harness.until_value(WAITING)
        await other.execute(change)
        await other.execute("SELECT pg_advisory_unlock($1)", PAUSE)
    assert outcomes(harness)["decided_anew"] == 1
    await harness.finish("u")
    await go_through(harness)
    await go_through(harness)
    await check_whole(harness, 8)


async def test_a_row_that_somebody_else_has_locked_is_waited_for_in_a_transaction(
    harness, postgres
):
    await chain(harness)
    async with another(postgres) as other, anyio.create_task_group() as group:
        await other.execute("BEGIN")
        await other.execute("SELECT FROM dag_state FOR UPDATE")
        group.start_soon(harness.call, post("a"))
        await harness.until_value(WAITING)
        assert outcomes(harness)["decided_anew"] == 1
        await other.execute("COMMIT")
    await finish_both(harness)
    await check_whole(harness, 4)


async def test_a_dag_that_subscribes_meanwhile_gets_the_next_event(harness):
    await chain(harness)
    await harness.load(dag("third", task("v"), on="a"))
    await harness.call(post("a"))
    assert outcomes(harness)["decided_anew"] == 1
    await harness.finish("v")
    await finish_both(harness)
    assert await harness.states("third") == ["success"]


async def test_a_limit_of_a_tag_that_is_set_meanwhile_holds(harness):
    await harness.load(dag("d", task("t"), on="a", tags=("x",)))
    await harness.call(post("a"))
    await harness.finish("t")
    await harness.call(SetPool("tag:x", 1))
    for _ in range(2):
        await harness.call(post("a"))
    order = await harness.order("t")
    assert harness.orders == []
    await harness.report(order.result())
    await harness.finish("t")
    assert await harness.states() == ["success"] * 3


async def test_a_task_that_begins_to_wait_for_the_events_gets_the_next_one(harness):
    await chain(harness)
    await harness.load(dag("waits", task("w")))
    await harness.call(StartRun("waits"))
    order = await harness.order("w")
    waits = encode(WaitSet("0", "it", (Wait("event", uri("a")),)))
    await harness.report(order.result(Outcome.DEFERRED, wait_set=waits))
    await harness.call(post("a"))
    assert outcomes(harness)["decided_anew"] == 1
    await harness.finish("w")
    assert await harness.states("waits") == ["success"]
    await finish_both(harness)


async def test_a_run_with_an_input_of_many_events_is_decided_from_memory(harness):
    await harness.load(dag("d", task("t"), on="a"))
    for _ in range(3):
        await harness.call(post("a", "a", "a"))
        for _ in range(3):
            await harness.finish("t")
    assert outcomes(harness) == {"written": 10, "decided_anew": 0}
    assert await harness.value("SELECT count(*) FROM run_event") == 9
    assert await harness.states() == ["success"] * 9


async def test_names_of_instances_are_kept_which_are_written_after_the_batch(harness):
    await harness.load(dag("d", task("t", over=[40])))
    await harness.call(StartRun("d"))
    for index in range(40):
        fields = {"map_name": f"name {index}"} if index % 5 == 1 else {}
        order = await harness.order("t", map_index=index)
        order.delivery.ack()
        await harness.report(order.result(**fields))
    assert outcomes(harness)["decided_anew"] > 0
    assert outcomes(harness)["written"] > 0
    names = await harness.rows("SELECT map_index, map_name FROM task ORDER BY map_index")
    assert [tuple(row) for row in names] == [
        (index, f"name {index}" if index % 5 == 1 else None) for index in range(40)
    ]
    assert await harness.states() == ["success"]


async def test_a_large_run_is_decided_from_memory_chunk_by_chunk(harness):
    names = [f"t{number}" for number in range(600)]
    await harness.load(dag("d", *map(task, names), task("last", *names)))
    await harness.call(StartRun("d"))
    for name in names:
        await harness.finish(name)
    found = outcomes(harness)
    assert found["written"] > 500
    await harness.finish("last")
    assert await harness.states() == ["success"]
    assert await harness.value("SELECT count(*) FROM progress_chunk") == 0
    assert await harness.value("SELECT count(*) FROM task WHERE state = 'success'") == 601


async def test_a_large_run_that_changes_meanwhile_is_read_anew(harness, postgres):
    names = [f"t{number}" for number in range(500)]
    await harness.load(dag("d", *map(task, names)))
    await harness.call(StartRun("d"))
    for number, name in enumerate(names):
        if number in (250, 300):
            async with another(postgres) as other:
                await other.execute("UPDATE run_live SET info = info")
        await harness.finish(name)
    assert outcomes(harness)["decided_anew"] > 0
    assert await harness.states() == ["success"]


async def test_a_dag_that_is_paused_meanwhile_runs_nothing(harness):
    await chain(harness)
    await harness.call(SetPaused("second", paused=True))
    await harness.call(post("a"))
    await harness.finish("t", emits=EMITTED)
    assert await harness.states("second") == ["success"]
    await harness.call(SetPaused("second", paused=False))
    await harness.finish("u")
    assert await harness.states("second") == ["success"] * 2


async def test_keys_are_claimed_by_the_statement(harness, postgres):
    await chain(harness)
    before = outcomes(harness)["written"]
    (first,) = await harness.call(post("a", keys=("k",)))
    assert outcomes(harness)["written"] == before + 1
    (again,) = await harness.call(post("a", keys=("k",)))
    assert (again.event_id, again.duplicate) == (first.event_id, True)
    await finish_both(harness)
    await check_whole(harness, 4)


async def test_a_key_that_another_transaction_claims_is_waited_for(harness, postgres):
    await chain(harness)
    async with another(postgres) as other, anyio.create_task_group() as group:
        await other.execute("BEGIN")
        insert = "INSERT INTO idempotency_key (key, event_id) VALUES ('k', gen_random_uuid())"
        await other.execute(insert)
        answers = []

        async def send() -> None:
            answers.extend(await harness.call(post("a", keys=("k",))))

        group.start_soon(send)
        await harness.until_value(WAITING)
        await other.execute("COMMIT")
    assert answers[0].duplicate
    await check_whole(harness, 2)


async def test_a_request_that_breaks_in_the_statement_is_carried_out_once(
    harness, postgres, paused
):
    await chain(harness)
    async with another(postgres) as other, anyio.create_task_group() as group:
        await other.execute("SELECT pg_advisory_lock($1)", PAUSE)
        group.start_soon(harness.call, post("a"))
        await harness.until_value(WAITING)
        waiting = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'advisory'"
        )
        await other.execute(waiting)
        await other.execute("SELECT pg_advisory_unlock($1)", PAUSE)
    await finish_both(harness)
    await go_through(harness)
    await check_whole(harness, 6)


async def test_two_managers_that_meet_lose_and_double_nothing(database, bus, nats):
    rounds = 80
    # The first one gets all results, so what it remembers holds until the other one decides, too.
    async with running_managers(database, bus, nats, managers=2, rank=None) as pair:
        await pair.load(
            dag("both", task("t", emits=["c"]), on="a & b", max_active_runs=1_000),
            dag("next", task("u"), on="c", max_active_runs=1_000),
        )
        emitted = {"t": (EmittedEvent(uri("c")),), "u": ()}
        pair.automatic = lambda order: [order.result(emits=emitted[order.task_id])]
        for number in range(rounds):
            second = int(number % 4 == 0)
            async with anyio.create_task_group() as group:
                group.start_soon(pair.call, post("a"))
                group.start_soon(partial(pair.call, post("b"), manager=second))
        await pair.quiet()
    found = outcomes(pair)
    assert found["written"] > 0
    assert found["decided_anew"] > 0
    consumed = "SELECT count(*), count(DISTINCT (event, input)) FROM run_event WHERE input < 2"
    ((events, distinct),) = await pair.rows(consumed)
    assert events == distinct == 3 * rounds
    assert await pair.states("both") == ["success"] * rounds
    assert await pair.states("next") == ["success"] * rounds
    assert await pair.value("SELECT count(*) FROM pending_event") == 0
    assert await pair.value("SELECT sum(active) FROM dag_state") == 0
    assert await pair.value(DISORDERED) == 0
