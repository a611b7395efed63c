"""Every named query fits the schema, and none of the hot ones reads a big table whole."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import resources
from uuid import UUID

import asyncpg
import msgspec
import pytest
from msgspec.structs import replace

from pubsubflow.store.named_queries import SQL

pytestmark = pytest.mark.anyio

BIG = {
    "attempt", "audit", "cell", "dag", "dag_version", "dataset", "event", "event_fate",
    "event_key", "gate", "log", "news", "pending", "run", "run_event", "run_live", "slot",
    "subscription", "task", "task_live",
}  # fmt: skip
SWEEPS = {  # looked through now and then; the table holds only what is not finished
    "find_undelivered": {"task_live"},
    "find_dead_workers": {"task_live"},
    "find_chained_runs": {"task_live"},
    "page_running_runs": {"run_live"},
    "read_backlog": {"task_live", "gate", "dag"},  # when somebody scrapes, some rows at most
    "subscribe_patterns": {"dataset"},  # once, when a DAG that has patterns is loaded
}
NOW = datetime(2026, 11, 20, tzinfo=UTC)
FILL = """
INSERT INTO audit (asker, action, at) SELECT 'a' || n % 5, 'b', now() - make_interval(mins => n)
    FROM generate_series(1, 50000) AS n;
INSERT INTO dataset (uri) SELECT 'x://d/' || n FROM generate_series(1, 5000) AS n;
INSERT INTO dag (dag_id, file) SELECT 'd' || n, 'f' || n FROM generate_series(1, 5000) AS n;
INSERT INTO dag_version (dag, number, hash, spec)
    SELECT n, v, 'h' || v, '' FROM generate_series(1, 5000) AS n, generate_series(1, 4) AS v;
INSERT INTO gate (dag, version) SELECT n, n FROM generate_series(1, 5000) AS n;
INSERT INTO subscription (dataset, dag)
    SELECT n, 1 + (n * 7 + k) % 5000 FROM generate_series(1, 5000) AS n, generate_series(0, 3) AS k;
INSERT INTO run (id, run_id, dag, version, run_key, kind, state, params, cause)
    SELECT n, gen_random_uuid(), 1 + n % 5000, 1 + n % 5000, 'k' || n, 'dataset',
           CASE WHEN n % 50 = 0 THEN 'running' ELSE 'success' END, '{}', 'c'
    FROM generate_series(1, 20000) AS n;
INSERT INTO event (id, event_id, dataset, extra, time, source, run)
    SELECT n, gen_random_uuid(), 1 + n % 5000, '{}', now(), 'task', 1 + n % 20000
    FROM generate_series(1, 20000) AS n;
INSERT INTO event_key (key, event_id)
    SELECT 'k' || n, gen_random_uuid() FROM generate_series(1, 20000) AS n;
INSERT INTO run_event (run, event, place) SELECT n, n, 0 FROM generate_series(1, 20000) AS n;
INSERT INTO cell (dag, key, state, open)
    SELECT 1 + n % 5000, 'k' || n, '', n % 10 = 0 FROM generate_series(1, 20000) AS n;
INSERT INTO pending (dag, cell, place, event)
    SELECT 1 + n % 5000, '', 0, n FROM generate_series(1, 20000) AS n;
INSERT INTO event_fate (event, dag, place, fate, reason)
    SELECT n, 1 + n % 5000, 0, 'filtered', 'r' FROM generate_series(1, 20000) AS n;
INSERT INTO run_live (run, dag, version, progress, info)
    SELECT n, 1 + n % 5000, 1, '', '' FROM generate_series(1, 20000) AS n;
INSERT INTO task_live (run, node, map_index, attempt, delivery, state, worker)
    SELECT n, 0, -1, 1, 1, 'running', 'w' || n % 100 FROM generate_series(1, 20000) AS n;
INSERT INTO task (run, node, map_index, attempt, state, ended_at)
    SELECT n, 0, -1, 1, 'success', now() FROM generate_series(1, 20000) AS n;
INSERT INTO attempt (run, node, map_index, attempt, delivery, ended_at)
    SELECT n, 0, -1, 1, 1, now() FROM generate_series(1, 20000) AS n;
INSERT INTO log (run, node, map_index, attempt, delivery, sequence, text)
    SELECT n, 0, -1, 1, 1, 0, 't' FROM generate_series(1, 20000) AS n;
INSERT INTO news (body) SELECT 'n' FROM generate_series(1, 20000) AS n;
INSERT INTO line (limits, most) SELECT ARRAY['dag:d' || n, 'pool:p' || n % 10], ARRAY[4, 0]
    FROM generate_series(1, 50) AS n;
INSERT INTO slot (run, node, map_index, line, priority, held)
    SELECT n, 0, -1, 1 + n % 50, n % 3, n % 10 = 0 FROM generate_series(1, 20000) AS n;
INSERT INTO worker (worker, host, pid, slots, busy)
    SELECT 'w' || n, 'h', 1, 1, 1 FROM generate_series(1, 100) AS n;
INSERT INTO timer (due_at, kind, dag, run)
    SELECT now() + n * interval '1 second', 'retry', 1, n FROM generate_series(1, 20000) AS n;
ANALYZE;
"""


@pytest.fixture(scope="module")
async def big(servers):
    """Connect to a database whose big tables hold 20,000 rows each."""
    admin = await asyncpg.connect(servers.postgres.dsn)
    await admin.execute("CREATE DATABASE big_tables TEMPLATE template_psf")
    await admin.close()
    connection = await asyncpg.connect(replace(servers.postgres, database="big_tables").dsn)
    await connection.execute(FILL)
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    yield connection
    await connection.close()


@pytest.mark.parametrize("name", sorted(SQL))
async def test_a_query_fits_the_schema(big, name):
    await big.prepare(SQL[name])


@pytest.mark.parametrize("name", sorted(name for name in SQL if "LOCK TABLE" not in SQL[name]))
async def test_a_query_reads_no_big_table_whole(big, name):
    await big.execute(f"PREPARE {name} AS {SQL[name]}")
    nulls = ", ".join("NULL" for _ in (await big.prepare(SQL[name])).get_parameters())
    call = f"{name}({nulls})" if nulls else name
    plan = await big.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE {call}")
    scanned = {table for table in whole(msgspec.json.decode(plan)[0]["Plan"]) if table in BIG}
    assert scanned <= SWEEPS.get(name, set()), plan


HISTORY = {"attempt", "event", "event_fate", "event_key", "log", "run", "run_event", "task"}


async def test_what_is_asked_at_each_scrape_touches_no_history(big):
    plan = await big.fetchval(f"EXPLAIN (FORMAT JSON) {SQL['read_backlog']}", 100_000)
    assert not set(re.findall(r'"Relation Name": "(\w+)"', plan)) & HISTORY, plan


def whole(node: dict) -> Iterator[str]:
    """Yield the tables that a plan reads from one end to the other."""
    if node["Node Type"] == "Seq Scan":
        yield node["Relation Name"]
    for child in node.get("Plans", ()):
        yield from whole(child)


@pytest.mark.parametrize("batch", [1, 500])
async def test_locking_and_reading_stay_on_indexes_with_their_real_arguments(big, batch):
    await big.execute("SET plan_cache_mode = force_custom_plan")
    numbers = list(range(1, batch + 1))
    zeros, places, wholes = [0] * batch, [-1] * batch, [""] * batch
    for name, arguments in {
        "lock_runs": (numbers,),
        "read_live_tasks": (numbers, zeros, places),
        "lock_gates": (numbers[:50], numbers[:50]),
        "read_cells": (numbers, wholes),
        "read_open_cells": (numbers[:50],),
        "read_consumable": (numbers, wholes, zeros, numbers),
        "consume_pending": (numbers, wholes, zeros, numbers),
        "expire_pending": (numbers, wholes, zeros, [NOW] * batch),
        "drop_pending": (numbers, wholes, zeros, ["skipped"] * batch, ["r"] * batch),
        "record_fates": (numbers, numbers, zeros, wholes, ["skipped"] * batch, ["r"] * batch),
        "read_dead_places": (1, numbers),
        "revive_events": (numbers[:50], numbers[:50]),
        "read_history": (1, 19_000, 20_000, 500),
        "read_recorded": (1, NOW, None, None, 500, 20_000),
        "read_collected": (numbers,),
        "read_collected_events": (numbers[:50], 500),
        "find_recorded_events": ([UUID(int=number) for number in numbers],),
        "read_dag_cells": (1,),
        "skip_unasked": (1, wholes, zeros, "r"),
        "move_pending": (1, wholes, zeros, zeros),
        "read_pending_times": (1, wholes, zeros, numbers),
        "find_event_keys": ([f"k{number}" for number in numbers],),
        "find_run_keys": (numbers, [f"k{number}" for number in numbers]),
        "read_results": (numbers, zeros),
        "take_queued_runs": (1, 16),
        "read_consumed_events": (1, 0, 500),
        "read_consumed": (numbers[:50], 100),
        "read_fates": (numbers[:50],),
        "read_subscribers": (numbers[:50],),
        "count_recent_fates": (1, None),
        "count_held_back": (1, 19_000, 1000),
        "count_too_old": (1, "", [0], [NOW]),
        "read_last_events": (1, [0, 1], ["x://d/1", "x://d/*"], [None, "^x://d/[^/]*$"]),
        "find_last_run": (1, "p"),
        "leave_slots": (numbers, zeros, places),
        "read_lines": (numbers[:50], ["pool:p1"]),
        "read_first_waiting": (numbers[:50], numbers[:50]),
        "hold_slots": (numbers, zeros, places),
        "release_ready": (numbers, zeros, places),
        "read_task_lines": (1, 0, -1, 5, 100),
        "read_run_tasks": (1,),
        "clear_tasks": (numbers, zeros, places, zeros),
        "read_past_attempts": (numbers, zeros, places),
    }.items():
        plan = await big.fetchval(f"EXPLAIN (FORMAT JSON) {SQL[name]}", *arguments)
        assert not set(whole(msgspec.json.decode(plan)[0]["Plan"])) & BIG, (name, plan)


def test_every_query_has_a_user():
    package = resources.files("pubsubflow")
    code = "".join(
        file.read_text()
        for folder in ("store", "manager", "clock", "loader")
        for file in (package / folder).iterdir()
        if file.name.endswith(".py")
    )
    assert [name for name in SQL if f'"{name}"' not in code] == []


def test_every_query_says_what_it_does():
    assert [name for name, text in SQL.items() if not text.startswith("--")] == []
