"""Two managers in a world that misbehaves do exactly what the reference says."""

import asyncpg
import pytest
from core_rig import running
from manager_world import World, watch
from reference_model import replay

pytestmark = pytest.mark.anyio


@pytest.fixture
async def admin(postgres):
    connection = await asyncpg.connect(postgres.url)
    await watch(connection)
    yield connection
    await connection.close()


async def play(database, bus, nats, admin, *, seed: int, steps: int) -> None:
    async with running(database, bus, nats, managers=2) as rig:
        world = World(rig, admin, seed)
        await world.play(steps)
        await compare(rig, world)


async def compare(rig, world) -> None:
    """Hold what is in the database against the reference."""
    assert await rig.rows("SELECT what FROM violation") == []
    assert await rig.rows("SELECT subject, reason FROM dead_letter") == []
    log = [
        (number, uri.removeprefix("x://"))
        for number, uri in await rig.rows(
            "SELECT event.id, uri FROM event JOIN dataset ON dataset.id = dataset ORDER BY 1"
        )
    ]
    await compare_senders(rig, world)
    for dag_id, condition in world.conditions.items():
        await compare_dag(rig, dag_id, replay(condition, log))
    await compare_runs(rig, world)


async def compare_senders(rig, world) -> None:
    names = [
        name for (name,) in await rig.rows("SELECT extra->>'name' FROM event WHERE source = 'api'")
    ]
    assert len(names) == len(set(names)), "no event twice"
    assert world.posted <= set(names) <= world.posted | world.unsure, "every event once"
    for answers in world.answers.values():
        assert len({answer.event_id for answer in answers}) == 1
        assert sum(not answer.duplicate for answer in answers) <= 1
    assert all(len(runs) == 1 for runs in world.runs.values()), "one run a key"


async def compare_dag(rig, dag_id: str, expected) -> None:
    """Every firing is one run that consumed what the reference says; the rest is pending."""
    rows = await rig.rows(
        "SELECT run.id, trigger.id, re.event, re.place FROM run JOIN dag ON dag.id = run.dag"
        " JOIN event AS trigger ON run.run_key = 'dataset:' || trigger.event_id"
        " JOIN run_event AS re ON re.run = run.id WHERE dag_id = $1",
        dag_id,
    )
    found: dict[tuple[int, int], set] = {}
    for run, trigger, event, place in rows:
        found.setdefault((trigger, run), set()).add((event, place))
    firings = [(trigger, frozenset(taken)) for (trigger, _), taken in sorted(found.items())]
    assert firings == expected.firings
    pending = await rig.rows(
        "SELECT event, place FROM pending JOIN dag ON dag.id = pending.dag WHERE dag_id = $1",
        dag_id,
    )
    assert set(pending) == expected.left
    made = await rig.value(
        "SELECT count(*) FROM run JOIN dag ON dag.id = dag WHERE dag_id = $1 AND kind = 'dataset'",
        dag_id,
    )
    assert made == len(firings)


async def compare_runs(rig, world) -> None:
    """Every run ended, every success emitted once, and tasks saw what their run consumed."""
    assert await rig.rows("SELECT * FROM run WHERE state IN ('running', 'queued')") == []
    assert await rig.rows("SELECT * FROM task_live") == []
    assert await rig.rows("SELECT * FROM gate WHERE active <> 0 OR queued <> 0") == []
    for dag_id, node in world.last_nodes.items():
        emitted = await rig.rows(
            "SELECT run, node, map_index FROM event JOIN run ON run.id = run"
            " JOIN dag ON dag.id = dag WHERE dag_id = $1 ORDER BY 1, 2, 3",
            dag_id,
        )
        succeeded = await rig.rows(
            "SELECT run, node, map_index FROM task JOIN run ON run.id = run"
            " JOIN dag ON dag.id = dag WHERE dag_id = $1 AND node = $2 AND task.state = 'success'"
            " ORDER BY 1, 2, 3",
            dag_id,
            node,
        )
        assert emitted == succeeded
    consumed: dict[int, list[str]] = {}
    for run, event, _ in await rig.rows(
        "SELECT DISTINCT re.run, event.event_id, event.id FROM run_event AS re"
        " JOIN event ON event.id = re.event ORDER BY re.run, event.id"
    ):
        consumed.setdefault(run, []).append(str(event))
    for order in rig.seen:
        told = [event.event_id for event in order.info.events]
        assert told == consumed.get(order.message.run, [])


@pytest.mark.parametrize("seed", range(4))
async def test_a_misbehaving_world_ends_as_the_reference_says(database, bus, nats, admin, seed):
    await play(database, bus, nats, admin, seed=seed, steps=250)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1040))
async def test_many_misbehaving_worlds(database, bus, nats, admin, seed):
    await play(database, bus, nats, admin, seed=seed, steps=500)
