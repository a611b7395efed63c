"""Filling for the page: 100,000 runs, 10,000 DAGs and datasets, a wide DAG, much output."""

import asyncpg

from pubsubflow.model.schedule.conditions import DatasetInput, ScheduleSpec
from pubsubflow.model.source.stored_specs import STORED_SPEC
from pubsubflow.model.spec import DagSpec, MappedArgument, TaskSpec

DAGS = 10_000
RUNS = 100_000
WIDE_TASKS, WIDE_RUNS = 500, 50
INSTANCES = 10_000
LINES = 1_000_000
# Version 7: the time in milliseconds comes first.
ID = """(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7'
    || substr(md5(n::text || dag::text), 1, 3) || '8'
    || substr(md5(n::text || dag::text), 4, 15))::uuid"""

FILL_DATASETS = """
INSERT INTO dataset (uri) SELECT 'bench://lake/part-' || lpad(n::text, 5, '0')
FROM generate_series(0, $1) AS n
"""
SUBSCRIBE = """
INSERT INTO dag_subscription (dataset, dag)
SELECT dataset.id, dag.id
FROM dag JOIN dataset ON dataset.uri = 'bench://lake/part-' || right(dag.dag_id, 5)
WHERE dag.dag_id LIKE 'fill-%'
"""
FILL_EVENTS = """
INSERT INTO event (id, event_id, dataset, extra, time, source)
SELECT nextval('event_id'), gen_random_uuid(), dataset.id, '{}', now(), 'api'
FROM dataset WHERE uri LIKE 'bench://lake/%'
"""
FILL_RUNS = f"""
INSERT INTO run (id, run_id, dag, version, run_key, kind, state, params, cause, created_at,
                 started_at, ended_at)
SELECT nextval('run_number'), {ID}, dag, version, 'fill:' || n, 'dataset',
       CASE WHEN n % 97 = 0 THEN 'failed' ELSE 'success' END, '{{}}', 'filled', at,
       at + interval '20 ms', at + interval '1 s' * (1 + n % 7)
FROM (
    SELECT n, s.dag, s.version, now() - n * interval '0.8 s' AS at
    FROM generate_series(1, $1::int) AS n
    JOIN (SELECT dag, version, row_number() OVER (ORDER BY dag) - 1 AS place FROM dag_state) AS s
      ON s.place = n % $2::int
) AS made
"""
FILL_ONE = f"""
INSERT INTO run (id, run_id, dag, version, run_key, kind, state, params, cause, created_at,
                 started_at, ended_at)
SELECT nextval('run_number'), {ID}, dag, version, 'one:' || n, 'manual', 'failed', '{{}}', 'filled',
       at, at + interval '1 s', at + interval '1 min'
FROM (
    SELECT n, s.dag, s.version, now() - n * interval '10 min' AS at
    FROM generate_series(1, $2::int) AS n
    JOIN dag_state AS s ON s.dag = (SELECT id FROM dag WHERE dag_id = $1)
) AS made
RETURNING id, run_id
"""
FILL_TASKS = """
INSERT INTO task (run, node, map_index, attempt, state, queued_at, started_at, ended_at)
SELECT run, node, -1, 1,
       CASE WHEN (node * 7 + run / 1000) % 41 = 0 THEN 'failed' ELSE 'success' END,
       now(), now(), now()
FROM unnest($1::bigint[]) AS run, generate_series(0, $2::int) AS node
"""
FILL_MAPPED = """
INSERT INTO task (run, node, map_index, attempt, state, queued_at, started_at, ended_at)
SELECT $1, 1, n, 1, CASE WHEN n % 500 = 7 THEN 'failed' ELSE 'success' END, now(), now(), now()
FROM generate_series(0, $2::int) AS n
"""


FILL_LOG = """
INSERT INTO log (run, node, map_index, attempt, delivery, sequence, text)
SELECT $1, 0, -1, 1, 1, chunk, string_agg(
    '{"t":' || (1764000000 + chunk) || ',"s":"stdout","m":"line ' || chunk * 1000 + line || '"}'
    || E'\\n', '' ORDER BY line)
FROM generate_series(0, $2::int) AS chunk, generate_series(0, 999) AS line
GROUP BY chunk
"""


async def fill(dsn: str) -> dict[str, str]:
    """Fill the store of a daemon that runs; return the ids of runs by what they are for."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(FILL_DATASETS, DAGS, timeout=600)
        await _save(connection, [_small(number) for number in range(DAGS)])
        await _save(connection, [_wide(), _mapped()])
        await connection.execute(SUBSCRIBE, timeout=600)
        await connection.execute(FILL_EVENTS, timeout=600)
        await connection.execute(FILL_RUNS, RUNS, DAGS, timeout=600)
        wide = await connection.fetch(FILL_ONE, "wide", WIDE_RUNS)
        numbers = [row["id"] for row in wide]
        await connection.execute(FILL_TASKS, numbers, WIDE_TASKS - 1, timeout=600)
        (mapped,) = await connection.fetch(FILL_ONE, "mapped", 1)
        await connection.execute(FILL_MAPPED, mapped["id"], INSTANCES - 1, timeout=600)
        await connection.execute(FILL_LOG, numbers[0], LINES // 1000 - 1, timeout=600)
        await connection.execute("ANALYZE", timeout=600)
    finally:
        await connection.close()
    return {"wide": str(wide[0]["run_id"]), "mapped": str(mapped["run_id"])}


def _small(number: int) -> DagSpec:
    """Return a DAG that takes one dataset and makes the next."""
    dag_id = f"fill-{number:05}"
    schedule = ScheduleSpec(DatasetInput(0, f"bench://lake/part-{number:05}"))
    outlet = f"bench://lake/part-{(number + 1) % DAGS:05}"
    tasks = (TaskSpec(0, "extract"), TaskSpec(1, "load", upstream=(0,), outlets=(outlet,)))
    return DagSpec(
        dag_id, "filled.py", "h", tasks, schedule=schedule, tags=(f"team-{number % 40}",)
    )


def _wide() -> DagSpec:
    tasks = tuple(
        TaskSpec(node, f"stage_{node // 25}.step_{node}", groups=(f"stage_{node // 25}",))
        for node in range(WIDE_TASKS)
    )
    return DagSpec("wide", "filled.py", "h", tasks)


def _mapped() -> DagSpec:
    over = MappedArgument("number", node=0)
    tasks = (
        TaskSpec(0, "list"),
        TaskSpec(1, "each", upstream=(0,), inputs=(0,), mapped_arguments=(over,)),
    )
    return DagSpec("mapped", "filled.py", "h", tasks)


async def _save(connection: asyncpg.Connection, specs: list[DagSpec]) -> None:
    names = [spec.dag_id for spec in specs]
    rows = await connection.fetch(
        "INSERT INTO dag (dag_id, file) SELECT name, 'filled.py' FROM unnest($1::text[]) AS name "
        "RETURNING id, dag_id",
        names,
        timeout=600,
    )
    numbers = {row["dag_id"]: row["id"] for row in rows}
    await connection.copy_records_to_table(
        "dag_version",
        records=[(numbers[spec.dag_id], 1, "h", STORED_SPEC.encode(spec)) for spec in specs],
        columns=["dag", "number", "hash", "spec"],
    )
    await connection.execute(
        "INSERT INTO dag_state (dag, version) SELECT dag, id FROM dag_version WHERE dag = ANY($1)",
        list(numbers.values()),
        timeout=600,
    )
    await connection.execute(
        "UPDATE dag SET version = v.id FROM dag_version AS v "
        "WHERE v.dag = dag.id AND dag.id = ANY($1)",
        list(numbers.values()),
        timeout=600,
    )
