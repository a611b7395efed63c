"""Slots of pools, DAGs and keys: who gets one, who waits, and in what order."""

from importlib import resources

import pytest
from dag_specs import dag, task

from pubsubflow.errors import NotFound
from pubsubflow.manager import Sweeper, SweeperSettings
from pubsubflow.manager.batch import Fold
from pubsubflow.manager.inbox import Item
from pubsubflow.model.runs.waits import Wait, Waiting
from pubsubflow.model.spec import RetryPolicy
from pubsubflow.model.wire.commands import CancelRun, ClearTasks, RemovePool, SetPool, StartRun
from pubsubflow.model.wire.messages import Outcome, TaskError, encode
from pubsubflow.store.database import begin
from pubsubflow.store.manager_transaction import FoldTransaction
from pubsubflow.store.read.read_models import Reading

pytestmark = pytest.mark.anyio
_SQL = resources.files("pubsubflow.store") / "sql"
OURS = "".join((_SQL / name).read_text() for name in ("slots.sql", "clearing.sql"))


async def states(rig) -> list[str]:
    return [state for (state,) in await rig.rows("SELECT state FROM task_live ORDER BY run, node")]


async def counts(rig) -> list[tuple]:
    """Return used and waiting of every line; they agree with who stands in it."""
    rows = await rig.rows("SELECT used, waiting FROM line ORDER BY limits, most")
    counted = await rig.rows(
        "SELECT count(*) FILTER (WHERE held), count(*) FILTER (WHERE NOT held)"
        " FROM line LEFT JOIN slot ON slot.line = line.id AND slot.run IS NOT NULL"
        " GROUP BY limits, most ORDER BY limits, most"
    )
    assert [used for used, _ in rows] == [used for used, _ in counted]
    assert sum(waiting for _, waiting in rows) == await rig.value(
        "SELECT count(*) FROM slot WHERE NOT held"
    )
    return rows


async def start(rig, dag_id: str = "d", runs: int = 1) -> list[str]:
    return [await rig.call(StartRun(dag_id)) for _ in range(runs)]


async def test_a_pool_bounds_what_runs_at_once_across_dags(rig):
    await rig.load(*(dag(name, task(f"t{name}", pool="p")) for name in "abc"))
    await rig.call(SetPool("p", 2))
    for name in "abc":
        await start(rig, name)
    assert await states(rig) == ["queued", "queued", "ready"]
    assert await counts(rig) == [(2, 1)]
    await rig.finish("tb")
    assert await states(rig) == ["queued", "queued"]
    await rig.finish("tc")
    await rig.finish("ta")
    assert await counts(rig) == [(0, 0)]
    assert await rig.rows("SELECT * FROM slot") == []


async def test_a_pool_that_nobody_has_set_bounds_nothing_until_then(rig):
    await rig.load(dag("d", task("t", pool="p")))
    await start(rig, runs=3)
    assert await states(rig) == ["queued"] * 3
    pools = Reading(rig.database).pools
    (pool,) = (await pools.page(limit=10)).items
    assert (pool.name, pool.slots, pool.used, pool.waiting) == ("p", None, 3, 0)
    await rig.call(SetPool("p", 1))
    await start(rig)
    await rig.finish("t")
    assert await states(rig) == ["queued", "queued", "ready"]
    assert (await pools.get("p")).slots == 1
    with pytest.raises(NotFound):
        await pools.get("q")


async def test_a_changed_limit_takes_effect_at_once(rig):
    await rig.load(dag("d", task("t", pool="p")))
    await rig.call(SetPool("p", 0))
    await start(rig, runs=4)
    assert await states(rig) == ["ready"] * 4
    await rig.call(SetPool("p", 2))
    await rig.order("t")
    await rig.order("t")
    assert await states(rig) == ["queued", "queued", "ready", "ready"]
    await rig.call(RemovePool("p"))
    assert await states(rig) == ["queued"] * 4
    with pytest.raises(NotFound):
        await rig.call(RemovePool("p"))


async def test_the_highest_priority_is_first_then_who_has_waited_longest(rig):
    priorities = {"x": 0, "low": 1, "high": 5, "mid": 3}
    await rig.load(
        *(dag(name, task(name, pool="p", priority=each)) for name, each in priorities.items())
    )
    await rig.call(SetPool("p", 1))
    for name in ("x", "low", "mid", "high", "mid", "high"):
        await start(rig, name)
    order = [(await rig.finish()).task_id for _ in range(6)]
    assert order == ["x", "high", "high", "mid", "mid", "low"]


async def test_a_waiting_task_of_another_run_gets_what_it_needs(rig):
    await rig.load(
        dag("x", task("x", pool="p")),
        dag("d", task("a"), task("b", "a", inputs=("a",), pool="p", over=("a",))),
    )
    await rig.call(SetPool("p", 1))
    await start(rig, "x")
    await start(rig, "d")
    await rig.finish("a", value=["one", "two"])
    assert sorted(await states(rig)) == ["queued", "ready", "ready"]
    await rig.finish("x")
    order = await rig.finish("b")
    assert (order.inputs, order.elements) == ({0: ["one", "two"]}, {"arg0": "one"})
    assert (await rig.finish("b")).elements == {"arg0": "two"}
    await rig.until_states("success", "success")


async def test_a_dag_bounds_its_tasks_and_a_key_runs_one_at_a_time(rig):
    await rig.load(
        dag("d", *(task(name) for name in "abc"), task("e", "a"), max_active_tasks=2),
        dag("k", task("k1", concurrency_key="k"), task("k2", concurrency_key="k")),
    )
    await start(rig, "d")
    assert await states(rig) == ["queued", "queued", "ready"]
    order = await rig.order("a")
    assert order.message.chain == ()
    await rig.report(order.result())
    assert await states(rig) == ["ready", "queued", "queued"][::-1]
    await start(rig, "k")
    assert (await states(rig))[-2:] == ["queued", "ready"]
    await rig.finish("k1")
    await rig.finish("k2")


async def test_a_task_that_needs_two_slots_lets_others_pass_meanwhile(rig):
    await rig.load(
        dag("one", task("both", pool="p", concurrency_key="k")),
        dag("two", task("plain", pool="p")),
        dag("key", task("key", concurrency_key="k")),
    )
    await rig.call(SetPool("p", 1))
    await start(rig, "key")
    await start(rig, "one")
    await start(rig, "two")
    assert await states(rig) == ["queued", "ready", "queued"]
    await rig.finish("key")
    assert await states(rig) == ["ready", "queued"]
    await rig.finish("plain")
    await rig.finish("both")
    assert {(used, waiting) for used, waiting in await counts(rig)} == {(0, 0)}


async def test_a_waiting_task_costs_no_slot_and_needs_one_to_go_on(rig):
    await rig.load(dag("d", task("w", pool="p")), dag("e", task("t", pool="p")))
    await rig.call(SetPool("p", 1))
    await start(rig, "d")
    await start(rig, "e")
    order = await rig.order("w")
    wait = Wait("event", "x://e")
    await rig.report(order.result(Outcome.DEFERRED, waiting=encode(Waiting("0", "it", (wait,)))))
    assert await states(rig) == ["deferred", "queued"]
    await rig.post("e")

    async def resumed():
        return (await states(rig))[0] == "ready"

    await rig.until(resumed)
    await rig.finish("t")
    again = await rig.finish("w")
    assert [step.kind for step in again.message.steps] == ["wait"]
    await rig.until_states("success", "success")


async def test_a_retry_gives_the_slot_back_only_while_it_waits(rig):
    await rig.load(
        dag("now", task("n", pool="p", retry=RetryPolicy(1))),
        dag("later", task("l", pool="q", retry=RetryPolicy(1, delay_seconds=3600))),
        dag("x", task("x", pool="p"), task("y", pool="q")),
    )
    for pool in "pq":
        await rig.call(SetPool(pool, 1))
    for name in ("now", "later", "x"):
        await start(rig, name)
    error = TaskError("E", "no")
    await rig.finish("n", Outcome.FAILED, error=error)
    await rig.finish("l", Outcome.FAILED, error=error)
    assert await states(rig) == ["queued", "up_for_retry", "ready", "queued"]
    assert (await rig.order("n")).message.attempt == 2
    await rig.order("y")


async def test_cancelled_and_cleared_tasks_give_their_slots_back(rig):
    await rig.load(dag("d", task("t", pool="p")))
    await rig.call(SetPool("p", 1))
    first, second, third, _ = await start(rig, runs=4)
    await rig.call(CancelRun(second))
    await rig.call(CancelRun(first))
    assert await states(rig) == ["queued", "ready"]
    await rig.call(ClearTasks(third))
    assert await states(rig) == ["ready", "queued"]
    assert await counts(rig) == [(1, 1)]
    await rig.call(ClearTasks(third))
    assert await states(rig) == ["ready", "queued"]
    assert await rig.rows("SELECT attempt FROM attempt") == [(1,), (2,)]


async def test_what_a_task_waits_for_is_told(rig):
    await rig.load(dag("d", task("a", pool="p"), task("b", pool="p"), max_active_tasks=1))
    await rig.call(SetPool("p", 1))
    (run_id,) = await start(rig)
    reading = Reading(rig.database)
    tasks = (await reading.tasks.page(run_id, limit=10)).items
    assert [task.waits_for for task in tasks] == [
        None,
        "DAG d: 1 of 1 slots used, pool p: 1 of 1 slots used",
    ]
    place = await reading.tasks.find(run_id, "b", None)
    assert (await reading.tasks.get(place)).waits_for == tasks[1].waits_for


async def test_what_waits_for_a_slot_is_not_taken_for_lost(rig):
    await rig.load(dag("d", task("t", pool="p")))
    await rig.call(SetPool("p", 0))
    await start(rig)
    settings = SweeperSettings(undelivered_seconds=0.0)
    assert await Sweeper(database=rig.database, bus=rig.bus, settings=settings).sweep() == 0
    assert rig.seen == []


class Recording(FoldTransaction):
    """Notes which queries run."""

    def __init__(self, connection):
        super().__init__(connection)
        self.queries = []

    async def fetch(self, query, *arguments):
        self.queries.append(query)
        return await super().fetch(query, *arguments)


@pytest.mark.parametrize("limited", [False, True])
async def test_tasks_without_a_limit_cost_no_query_more(rig, limited):
    await rig.load(dag("d", task("t", pool="p" if limited else None)))
    item = Item(StartRun("d"), done=print, failed=print)
    async with rig.database.connection() as connection, begin(connection):
        transaction = Recording(connection)
        await Fold().fold([item], transaction)
    more = {name for name in transaction.queries if f"-- name: {name}\n" in OURS}
    assert bool(more) is limited, more


async def test_many_tasks_pass_a_narrow_pool_through_two_managers(pair):
    rig = pair
    rig.automatic = lambda order: [order.result()]
    await rig.load(dag("d", task("t", pool="p", over=(15,))))
    await rig.call(SetPool("p", 3))
    await start(rig, runs=2)
    await rig.quiet()
    await rig.until_states("success", "success")
    assert await counts(rig) == [(0, 0)]
