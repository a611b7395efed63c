"""Two managers under a random workload do exactly what the reference model says."""

from collections import Counter
from functools import partial
from random import Random

import asyncpg
import pytest

from support.harness import running_managers
from support.reference.checks import EVENTS, finding
from support.reference.log import replay
from support.stateful.manager import ManagerWorkload, watch

pytestmark = pytest.mark.anyio
counted: Counter[str] = Counter()


@pytest.fixture(scope="module", autouse=True)
def decided():
    """Check in the end that batches were decided by remembered rows, and some of them anew."""
    yield
    print(dict(counted))
    assert counted["written"] > 0
    assert counted["decided_anew"] > 0


@pytest.fixture
async def admin(postgres):
    connection = await asyncpg.connect(postgres.url)
    await watch(connection)
    yield connection
    await connection.close()


async def play(database, bus, nats, admin, *, seed: int, steps: int) -> None:
    # With half of the seeds some orders go to a worker of the managers' own, without the bus.
    space = partial(Random(seed).choice, (0, 1, 2, 100)) if seed % 4 >= 2 else None
    async with running_managers(database, bus, nats, managers=2, direct=space) as harness:
        workload = ManagerWorkload(harness, admin, seed)
        await workload.play(steps)
        await compare(harness, workload)
        for manager in harness.managers:
            counted.update(manager.metrics.remembered_batches())


async def compare(harness, workload) -> None:
    """Compare the database with the reference model."""
    assert await harness.rows("SELECT what FROM violation") == []
    assert await harness.rows("SELECT subject, reason FROM dead_letter") == []
    log = [
        (number, uri.removeprefix("x://"))
        for number, uri in await harness.rows(
            "SELECT event.id, uri FROM event JOIN dataset ON dataset.id = dataset ORDER BY 1"
        )
    ]
    await compare_senders(harness, workload)
    await compare_checks(harness, workload)
    for dag_id, condition in workload.conditions.items():
        await compare_dag(harness, dag_id, replay(condition, log))
    await compare_runs(harness, workload)


async def compare_senders(harness, workload) -> None:
    names = [
        name
        for (name,) in await harness.rows(
            f"SELECT extra->>'name' FROM {EVENTS} AS event WHERE source = 'api'"
        )
    ]
    assert len(names) == len(set(names)), "no event twice"
    assert workload.posted <= set(names) <= workload.posted | workload.unsure, "every event once"
    for answers in workload.answers.values():
        assert len({answer.event_id for answer in answers}) == 1
        assert sum(not answer.duplicate for answer in answers) <= 1
    assert all(len(runs) == 1 for runs in workload.runs.values()), "one run a key"


async def compare_checks(harness, workload) -> None:
    """Every event was checked by runs that found what is recorded, and is held for a reason."""
    rows = await harness.rows("SELECT * FROM check_result")
    assert bool(rows) == bool(workload.checks)
    holding = {row["event"] for row in rows if row["holding"]}
    held = await harness.rows("SELECT id FROM held_event WHERE discarded_at IS NULL")
    assert holding == {number for (number,) in held}
    for row in rows:
        assert row["outcome"] in ("passed", "failed", "error")
        found = finding(row["run_id"])
        if row["outcome"] != "error":
            assert (row["outcome"] == "passed") == found["passed"]
            assert row["severity"] == (found["severity"] or "error")
        fails = row["outcome"] != "passed" and row["severity"] == "error"
        assert fails or not row["holding"]
    runs = await harness.value("SELECT count(*) FROM run WHERE kind = 'check'")
    assert runs == sum(row["tries"] for row in rows), "one run a try"


async def compare_dag(harness, dag_id: str, expected) -> None:
    """Every firing is one run that consumed what the reference says; the rest is pending."""
    rows = await harness.rows(
        "SELECT run.id, trigger.id, re.event, re.input FROM run JOIN dag ON dag.id = run.dag"
        " JOIN event AS trigger ON run.run_key = 'dataset:' || trigger.event_id"
        " JOIN run_event AS re ON re.run = run.id WHERE dag_id = $1",
        dag_id,
    )
    found: dict[tuple[int, int], set] = {}
    for run, trigger, event, index in rows:
        found.setdefault((trigger, run), set()).add((event, index))
    firings = [(trigger, frozenset(taken)) for (trigger, _), taken in sorted(found.items())]
    assert firings == expected.firings
    pending = await harness.rows(
        "SELECT event, input FROM pending_event JOIN dag ON dag.id = pending_event.dag"
        " WHERE dag_id = $1",
        dag_id,
    )
    assert set(pending) == expected.left
    made = await harness.value(
        "SELECT count(*) FROM run JOIN dag ON dag.id = dag WHERE dag_id = $1 AND kind = 'dataset'",
        dag_id,
    )
    assert made == len(firings)


async def compare_runs(harness, workload) -> None:
    """Every run ended, every success emitted once, and tasks saw what their run consumed."""
    assert await harness.rows("SELECT * FROM run WHERE state IN ('running', 'queued')") == []
    assert await harness.rows("SELECT * FROM task_live") == []
    assert await harness.rows("SELECT * FROM dag_state WHERE active <> 0 OR queued <> 0") == []
    for dag_id, node in workload.last_nodes.items():
        emitted = await harness.rows(
            f"SELECT run, node, map_index FROM {EVENTS} AS event JOIN run ON run.id = run"
            " JOIN dag ON dag.id = dag WHERE dag_id = $1 ORDER BY 1, 2, 3",
            dag_id,
        )
        succeeded = await harness.rows(
            "SELECT run, node, map_index FROM task JOIN run ON run.id = run"
            " JOIN dag ON dag.id = dag WHERE dag_id = $1 AND node = $2 AND task.state = 'success'"
            " ORDER BY 1, 2, 3",
            dag_id,
            node,
        )
        assert emitted == succeeded
    dangling = f"SELECT * FROM run_event WHERE event NOT IN (SELECT id FROM {EVENTS} AS known)"
    assert await harness.rows(dangling) == []
    consumed: dict[int, list[str]] = {}
    for run, event, _ in await harness.rows(
        f"SELECT DISTINCT re.run, event.event_id, event.id FROM run_event AS re"
        f" JOIN {EVENTS} AS event ON event.id = re.event ORDER BY re.run, event.id"
    ):
        consumed.setdefault(run, []).append(str(event))
    for order in harness.received:
        events = [event.event_id for event in order.info.events]
        run = order.message.run
        if events != consumed.get(run, []):
            raise AssertionError(
                f"{order.info.dag_id} {run} {order.message}: told {order.info.events},"
                f" consumed {consumed.get(run)}; {await facts(harness, run, events)}"
            )


async def facts(harness, run: int, events: list) -> dict:
    """Return what the database holds of a run and of events, for a report."""
    about = {
        "run": ("SELECT * FROM run WHERE id = $1", run),
        "run_event": ("SELECT * FROM run_event WHERE run = $1", run),
        "check_result": ("SELECT * FROM check_result WHERE event_id = ANY($1::uuid[])", events),
        "event": (f"SELECT * FROM {EVENTS} AS event WHERE event_id = ANY($1::uuid[])", events),
    }
    return {
        name: [dict(row) for row in await harness.rows(statement, given)]
        for name, (statement, given) in about.items()
    }


@pytest.mark.parametrize("seed", range(4))
async def test_a_random_workload_ends_as_the_reference_says(database, bus, nats, admin, seed):
    await play(database, bus, nats, admin, seed=seed, steps=250)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1040))
async def test_many_random_workloads(database, bus, nats, admin, seed):
    await play(database, bus, nats, admin, seed=seed, steps=500)
