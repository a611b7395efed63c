"""Every named query fits the schema, and none of the hot ones reads a big table whole."""

import ast
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from uuid import UUID

import asyncpg
import msgspec
import pytest
from msgspec.structs import replace

from pubsubflow.store.batches.statements import (
    BATCH,
    REMEMBERED_ARGUMENTS,
    SEVERAL,
    batch_statement,
    remembered_statement,
)
from pubsubflow.store.named_queries import SQL

pytestmark = pytest.mark.anyio

BIG = {
    "attempt", "audit", "backfill_run", "change", "check_result", "condition_state", "dag",
    "dag_state", "dag_subscription", "dag_version", "dataset", "event", "event_outcome",
    "held_event", "idempotency_key", "log", "pending_event", "run", "run_event", "run_live",
    "slot", "task", "task_live",
}  # fmt: skip
SWEEPS = {  # looked through now and then; the table holds only what is not finished
    "find_undelivered_tasks": {"task_live"},
    "find_sweep_work": {"task_live"},
    "find_dead_workers": {"task_live"},
    "find_chained_runs": {"task_live"},
    "list_worker_names": {"task_live"},  # once, at a start
    "page_live_runs": {"run_live"},
    "list_longest_runs": {"run_live"},  # of what has not ended
    "list_oldest_ready": {"task_live"},
    "list_versions_of_present_dags": {"dag", "dag_state"},  # when people look at datasets
    "list_live_runs_of_dag": {"run_live"},  # when a person deletes a DAG
    "list_stored_imports": {"dag", "dag_state"},  # once at a loader's start
    "list_dag_versions_in_force": {"dag_state"},  # only when people filter by tags
    "read_statistics": {"task_live", "dag_state", "dag"},  # at a scrape, at most some rows each
    "list_collecting_states": {"condition_state"},  # once for a slice that is due
    "count_condition_states": {"condition_state"},  # once an hour
    "delete_condition_states": {"condition_state"},
    "list_bundles_without_version": {"dag_state", "dag_version"},  # a few times a day
    "list_bundles_of_runs": {"run"},
    "refence_tasks": {"task_live"},  # once, after a restore
    "list_versions_of_live_runs": {"run_live"},  # when people limit a tag
    "list_live_runs_of_versions": {"run_live"},
    "list_dags_with_runs": {"dag_state"},  # only where runs are limited
    "find_idle_run_queues": {"dag_state"},
    "delete_lost_slots": {"slot", "task_live"},
    "delete_slots_of_limit": {"slot"},
    "count_wait_queues": {"slot"},
    "list_versions_that_name": {"dag", "dag_state", "dag_version"},  # when people look at a dataset
    "list_emitted_events": {"held_event"},  # when people look at a trace; once for all its runs
    "count_emitted_events": {"held_event"},
    "subscribe_patterns": {"dataset"},  # once, when a DAG that has patterns is loaded
}
PARTITION = re.compile(r"_s\d+$")
NOW = datetime(2026, 11, 20, tzinfo=UTC)
NEW_IMPORTS = """
INSERT INTO dag_file (file, source) SELECT 'f' || n, '' FROM generate_series(1, 500) AS n;
INSERT INTO dag_import (file, read_at, record) SELECT file, read_at, 'r' FROM dag_file;
INSERT INTO dag (dag_id, file) SELECT 'd' || n, 'f' || n FROM generate_series(1, 500) AS n;
INSERT INTO dag_version (dag, number, hash, spec) SELECT id, 1, 'h', '' FROM dag;
INSERT INTO dag_state (dag, version) SELECT dag, id FROM dag_version;
"""
FORGET_STATISTICS = """
DELETE FROM pg_statistic
WHERE starelid = ANY(ARRAY['dag', 'dag_file', 'dag_import', 'dag_state']::regclass[]);
"""
FILL = """
INSERT INTO audit (principal, action, at) SELECT 'a' || n % 5, 'b', now() - make_interval(mins => n)
    FROM generate_series(1, 50000) AS n;
INSERT INTO dataset (uri) SELECT 'x://d/' || n FROM generate_series(1, 5000) AS n;
INSERT INTO dag (dag_id, file) SELECT 'd' || n, 'f' || n FROM generate_series(1, 5000) AS n;
INSERT INTO dag_version (dag, number, hash, spec)
    SELECT n, v, 'h' || v, '' FROM generate_series(1, 5000) AS n, generate_series(1, 4) AS v;
INSERT INTO dag_state (dag, version) SELECT n, n FROM generate_series(1, 5000) AS n;
INSERT INTO dag_subscription (dataset, dag)
    SELECT n, 1 + (n * 7 + k) % 5000 FROM generate_series(1, 5000) AS n, generate_series(0, 3) AS k;
INSERT INTO run (id, run_id, dag, version, run_key, kind, state, params, cause)
    SELECT n, gen_random_uuid(), 1 + n % 5000, 1 + n % 5000, 'k' || n, 'dataset',
           CASE WHEN n % 50 = 0 THEN 'running' ELSE 'success' END, '{}', 'c'
    FROM generate_series(1, 20000) AS n;
INSERT INTO event (id, event_id, dataset, extra, time, source, run)
    SELECT n, gen_random_uuid(), 1 + n % 5000, '{}', now(), 'task', 1 + n % 20000
    FROM generate_series(1, 20000) AS n;
INSERT INTO idempotency_key (key, event_id)
    SELECT 'k' || n, gen_random_uuid() FROM generate_series(1, 20000) AS n;
INSERT INTO run_event (run, event, input) SELECT n, n, 0 FROM generate_series(1, 20000) AS n;
INSERT INTO condition_state (dag, partition_key, state, open)
    SELECT 1 + n % 5000, 'k' || n, '', n % 10 = 0 FROM generate_series(1, 20000) AS n;
INSERT INTO held_event (id, event_id, dataset, extra, time, source, held_at)
    SELECT n, gen_random_uuid(), 1 + n % 5000, '{}', now(), 'api', now()
    FROM generate_series(1, 20000) AS n;
INSERT INTO check_result (event, dag, event_id, dataset, blocking, holding, severity, outcome, run)
    SELECT n, 1 + n % 50, gen_random_uuid(), 1 + n % 5000, true, n % 10 = 0, 'error',
           CASE WHEN n % 5 = 0 THEN 'failed' ELSE 'passed' END, n
    FROM generate_series(1, 20000) AS n;
INSERT INTO pending_event (dag, partition_key, input, event)
    SELECT 1 + n % 5000, '', 0, n FROM generate_series(1, 20000) AS n;
INSERT INTO event_outcome (event, dag, input, outcome, reason)
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
INSERT INTO change (body) SELECT 'n' FROM generate_series(1, 20000) AS n;
INSERT INTO wait_queue (limits, capacities)
    SELECT ARRAY['dag:d' || n, 'pool:p' || n % 10], ARRAY[4, 0] FROM generate_series(1, 50) AS n;
INSERT INTO rate_limit (name, starts, per_seconds, burst)
    SELECT 'r' || n, 1, 1, 1 FROM generate_series(1, 50) AS n;
INSERT INTO slot (run, node, map_index, wait_queue, priority, held)
    SELECT n, 0, -1, 1 + n % 50, n % 3, n % 10 = 0 FROM generate_series(1, 20000) AS n;
INSERT INTO backfill (backfill_id, dag, state, open, newest_first, reprocess, planned, created_by)
    SELECT gen_random_uuid(), n, 'running', n % 5 = 0, false, 'missing', 100, 'a'
    FROM generate_series(1, 200) AS n;
INSERT INTO backfill_run (run, backfill, dag, ended)
    SELECT n, 1 + n % 200, 1 + n % 200, n % 50 <> 0 FROM generate_series(1, 20000) AS n;
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


async def test_a_batch_is_written_by_the_parts_that_it_fills(big):
    for name, width in BATCH.items():
        statement = await big.prepare(batch_statement([name]))
        single = await big.prepare(batch_statement([name], single=True))
        types = [each.name for each in statement.get_parameters()]
        of_rows = [each if name in SEVERAL else each.removesuffix("[]") for each in types]
        assert [each.name for each in single.get_parameters()] == of_rows
        assert len(statement.get_parameters()) == width, name
        remembered = await big.prepare(remembered_statement([name]))
        own = remembered.get_parameters()[REMEMBERED_ARGUMENTS:]
        assert own == statement.get_parameters(), name

    def bare(text):
        return " ".join(re.sub(r"--.*", "", text).split())

    assert bare(batch_statement(BATCH)) == bare(SQL["write_batch"])


@pytest.mark.parametrize("single", [False, True])
async def test_a_remembered_batch_reads_no_big_table_whole(big, single):
    name = f"remembered_{single}".lower()
    statement = remembered_statement(BATCH, single=single)
    await big.execute(f"PREPARE {name} AS {statement}")
    nulls = ", ".join("NULL" for _ in (await big.prepare(statement)).get_parameters())
    plan = await big.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE {name}({nulls})")
    assert not {table for table in whole(msgspec.json.decode(plan)[0]["Plan"]) if table in BIG}


@pytest.mark.parametrize("name", sorted(name for name in SQL if "LOCK TABLE" not in SQL[name]))
async def test_a_query_reads_no_big_table_whole(big, name):
    await big.execute(f"PREPARE {name} AS {SQL[name]}")
    nulls = ", ".join("NULL" for _ in (await big.prepare(SQL[name])).get_parameters())
    call = f"{name}({nulls})" if nulls else name
    plan = await big.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE {call}")
    scanned = {table for table in whole(msgspec.json.decode(plan)[0]["Plan"]) if table in BIG}
    assert scanned <= SWEEPS.get(name, set()), plan


HISTORY = {
    "attempt", "event", "event_outcome", "idempotency_key", "log", "run", "run_event", "task",
}  # fmt: skip


async def test_what_is_asked_at_each_scrape_touches_no_history(big):
    plan = await big.fetchval(f"EXPLAIN (FORMAT JSON) {SQL['read_statistics']}", 100_000)
    read = re.findall(r'"Relation Name": "(\w+)"', plan)
    assert not {PARTITION.sub("", table) for table in read} & HISTORY, plan


def whole(node: dict, *, by_index: bool = False) -> Iterator[str]:
    """Yield the tables that a plan reads from one end to the other; a partition's is its parent.

    Args:
        node: The plan.
        by_index: Also those that it reads whole by an index, which a limit would end early.
    """
    kind = node["Node Type"]
    by_index_alone = by_index and kind.startswith("Index") and "Index Cond" not in node
    if kind == "Seq Scan" or by_index_alone:
        yield PARTITION.sub("", node["Relation Name"])
    for child in node.get("Plans", ()):
        yield from whole(child, by_index=by_index)


@pytest.mark.parametrize("batch", [1, 500])
async def test_locking_and_reading_stay_on_indexes_with_their_real_arguments(big, batch):
    await big.execute("SET plan_cache_mode = force_custom_plan")
    numbers = list(range(1, batch + 1))
    zeros, indexes, wholes = [0] * batch, [-1] * batch, [""] * batch
    for name, arguments in {
        "lock_runs": (numbers, numbers, zeros, indexes),
        "lock_dag_states": (numbers[:50], numbers[:50], batch, numbers[:50]),
        "read_condition_states": (numbers, wholes),
        "read_open_condition_states": (numbers[:50],),
        "read_events_to_consume": (numbers, wholes, zeros, numbers),
        "consume_pending_events": (numbers, wholes, zeros, numbers),
        "expire_pending_events": (numbers, wholes, zeros, [NOW] * batch),
        "drop_pending_events": (numbers, wholes, zeros, ["skipped"] * batch, ["r"] * batch),
        "record_event_outcomes": (
            numbers,
            numbers,
            zeros,
            wholes,
            ["skipped"] * batch,
            ["r"] * batch,
        ),
        "read_dead_inputs": (1, numbers),
        "delete_dead_outcomes": (numbers[:50], numbers[:50]),
        "read_events_of_dag": (1, 19_000, 20_000, 500),
        "read_events_between": (1, NOW, None, 500, 20_000),
        "read_events_before": (1, NOW, 500, 20_000),
        "read_pending_of_keys": (1, ["p"]),
        "read_collecting_runs": (numbers,),
        "read_collected_events": (numbers[:50], 500),
        "find_recorded_events": ([UUID(int=number) for number in numbers],),
        "read_dag_condition_states": (1,),
        "skip_pending_events": (1, wholes, zeros, "r"),
        "move_pending_events": (1, wholes, zeros, zeros),
        "read_pending_times": (1, wholes, zeros, numbers),
        "find_idempotency_keys": ([f"k{number}" for number in numbers],),
        "find_requests": ([f"k{number}" for number in numbers],),
        "find_runs_by_key": (numbers, [f"k{number}" for number in numbers]),
        "read_results": (numbers, zeros),
        "dequeue_runs": (1, 16),
        "read_consumed_events": (1, 0, 500),
        "read_consumed": (numbers[:50], 100),
        "read_event_outcomes": (numbers[:50],),
        "read_subscribed_dags": (numbers[:50],),
        "count_recent_outcomes": (1, None),
        "count_unprocessed_events": (1, 19_000, 1000),
        "count_expired_events": (1, "", [0], [NOW]),
        "read_last_events": (1, [0, 1], ["x://d/1", "x://d/*"], [None, "^x://d/[^/]*$"]),
        "find_last_run": (1, "p"),
        "release_slots": (numbers, zeros, indexes),
        "read_wait_queues": (numbers[:50], ["pool:p1"]),
        "read_queue_heads": (numbers[:50], numbers[:50]),
        "grant_slots": (numbers, zeros, indexes),
        "queue_ready_tasks": (numbers, zeros, indexes),
        "read_task_wait_queues": (1, 0, -1, 5, 100),
        "read_finished_tasks": (1,),
        "clear_tasks": (numbers, zeros, indexes, zeros),
        "read_prior_attempts": (numbers, zeros, indexes),
    }.items():
        plan = await big.fetchval(f"EXPLAIN (FORMAT JSON) {SQL[name]}", *arguments)
        root = msgspec.json.decode(plan)[0]["Plan"]
        assert not set(whole(root)) & BIG, (name, plan)
        # Of a merge join the planner may read another table along the way.
        assert "dag_state" not in whole(root, by_index=True), (name, plan)


ABSENT = re.compile(r"\$\d+::[a-z]+(\[\])? IS NULL OR")


def test_a_query_whose_filters_may_be_absent_is_asked_in_a_search():
    """No plan is good for all filters, and Postgres takes one after five executions."""
    filtered = {name for name, text in SQL.items() if ABSENT.search(text) and "LIMIT" in text}
    asked = 0
    for file in Path(str(resources.files("pubsubflow") / "store" / "read")).rglob("*.py"):
        for function in ast.walk(ast.parse(file.read_text())):
            if isinstance(function, ast.AsyncFunctionDef):
                words = {n.value for n in ast.walk(function) if isinstance(n, ast.Constant)}
                opened = {n.attr for n in ast.walk(function) if isinstance(n, ast.Attribute)}
                if filtered & words and opened & {"connection", "transaction", "search"}:
                    asked += 1
                    assert "search" in opened, (file.name, function.name)
    assert asked >= 8


def test_every_query_has_a_user():
    package = resources.files("pubsubflow")
    code = "".join(
        file.read_text()
        for folder in ("store", "manager")
        for file in Path(str(package / folder)).rglob("*.py")
    )
    assert [name for name in SQL if f'"{name}"' not in code] == []


def test_every_query_says_what_it_does():
    assert [name for name, text in SQL.items() if not text.startswith("--")] == []


async def test_imports_are_read_at_once_before_tables_are_analyzed(database):
    async with database.transaction() as connection:
        await connection.execute(NEW_IMPORTS)
        await connection.execute(FORGET_STATISTICS)
        text = f"EXPLAIN (ANALYZE, FORMAT JSON) {SQL['list_stored_imports']}"
        plan = await connection.fetchval(text)
    nodes = list(_nodes(plan[0]["Plan"]))
    assert nodes[0]["Actual Rows"] == 500
    repeated = {node["Node Type"] for node in nodes if node["Actual Loops"] > 1}
    assert repeated <= {"Nested Loop", "Index Scan"}, plan


def _nodes(plan):
    yield plan
    for each in plan.get("Plans", ()):
        yield from _nodes(each)
