"""Slots of pools, DAGs and keys: who gets one, who waits, and in what order."""

from importlib import resources

import pytest

from pubsubflow.errors import NotFound
from pubsubflow.manager import Sweeper, SweeperSettings
from pubsubflow.manager.batch import BatchProcessor
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.model.limits.keys import FurtherKey, KeyPart
from pubsubflow.model.spec import RetryPolicy
from pubsubflow.model.wire.commands import CancelRun, ClearTasks, DeletePool, SetPool, StartRun
from pubsubflow.model.wire.messages import Outcome, TaskError, encode
from pubsubflow.model.wire.waits import Wait, WaitSet
from pubsubflow.store.batches.manager_transaction import ManagerTransaction
from pubsubflow.store.database import begin_transaction
from pubsubflow.store.read.read_models import ReadModels
from support.specs import dag, task

pytestmark = pytest.mark.anyio
_SQL = resources.files("pubsubflow.store") / "sql"
OURS = "".join((_SQL / name).read_text() for name in ("pools.sql", "clearing.sql"))


async def states(harness) -> list[str]:
    return [
        state for (state,) in await harness.rows("SELECT state FROM task_live ORDER BY run, node")
    ]


async def counts(harness) -> list[tuple]:
    """Return used and waiting of every line; they agree with who stands in it."""
    rows = await harness.rows("SELECT used, waiting FROM wait_queue ORDER BY limits, capacities")
    counted = await harness.rows(
        "SELECT count(*) FILTER (WHERE held), count(*) FILTER (WHERE NOT held)"
        " FROM wait_queue LEFT JOIN slot"
        " ON slot.wait_queue = wait_queue.id AND slot.run IS NOT NULL"
        " GROUP BY limits, capacities ORDER BY limits, capacities"
    )
    assert [used for used, _ in rows] == [used for used, _ in counted]
    assert sum(waiting for _, waiting in rows) == await harness.value(
        "SELECT count(*) FROM slot WHERE NOT held"
    )
    return rows


async def start(harness, dag_id: str = "d", runs: int = 1) -> list[str]:
    return [await harness.call(StartRun(dag_id)) for _ in range(runs)]


async def test_a_pool_bounds_what_runs_at_once_across_dags(harness):
    await harness.load(*(dag(name, task(f"t{name}", pool="p")) for name in "abc"))
    await harness.call(SetPool("p", 2))
    for name in "abc":
        await start(harness, name)
    assert await states(harness) == ["queued", "queued", "ready"]
    assert await counts(harness) == [(2, 1)]
    await harness.finish("tb")
    assert await states(harness) == ["queued", "queued"]
    await harness.finish("tc")
    await harness.finish("ta")
    assert await counts(harness) == [(0, 0)]
    assert await harness.rows("SELECT * FROM slot") == []


async def test_a_pool_bounds_nothing_until_it_is_set(harness):
    await harness.load(dag("d", task("t", pool="p")))
    await start(harness, runs=3)
    assert await states(harness) == ["queued"] * 3
    pools = ReadModels(harness.database).pools
    (pool,) = (await pools.page(limit=10)).items
    assert (pool.name, pool.slots, pool.used, pool.waiting) == ("p", None, 3, 0)
    await harness.call(SetPool("p", 1))
    await start(harness)
    await harness.finish("t")
    assert await states(harness) == ["queued", "queued", "ready"]
    assert (await pools.get("p")).slots == 1
    with pytest.raises(NotFound):
        await pools.get("q")


async def test_a_changed_limit_takes_effect_at_once(harness):
    await harness.load(dag("d", task("t", pool="p")))
    await harness.call(SetPool("p", 0))
    await start(harness, runs=4)
    assert await states(harness) == ["ready"] * 4
    await harness.call(SetPool("p", 2))
    await harness.order("t")
    await harness.order("t")
    assert await states(harness) == ["queued", "queued", "ready", "ready"]
    await harness.call(DeletePool("p"))
    assert await states(harness) == ["queued"] * 4
    with pytest.raises(NotFound):
        await harness.call(DeletePool("p"))


async def test_the_highest_priority_is_first_then_who_has_waited_longest(harness):
    priorities = {"x": 0, "low": 1, "high": 5, "mid": 3}
    await harness.load(
        *(dag(name, task(name, pool="p", priority=each)) for name, each in priorities.items())
    )
    await harness.call(SetPool("p", 1))
    for name in ("x", "low", "mid", "high", "mid", "high"):
        await start(harness, name)
    order = [(await harness.finish()).task_id for _ in range(6)]
    assert order == ["x", "high", "high", "mid", "mid", "low"]


async def test_a_waiting_task_of_another_run_gets_what_it_needs(harness):
    await harness.load(
        dag("x", task("x", pool="p")),
        dag("d", task("a"), task("b", "a", inputs=("a",), pool="p", over=("a",))),
    )
    await harness.call(SetPool("p", 1))
    await start(harness, "x")
    await start(harness, "d")
    await harness.finish("a", value=["one", "two"])
    assert sorted(await states(harness)) == ["queued", "ready", "ready"]
    await harness.finish("x")
    order = await harness.finish("b")
    assert (order.inputs, order.elements) == ({0: ["one", "two"]}, {"arg0": "one"})
    assert (await harness.finish("b")).elements == {"arg0": "two"}
    await harness.until_states("success", "success")


async def test_a_dag_bounds_its_tasks_and_a_key_runs_one_at_a_time(harness):
    await harness.load(
        dag("d", *(task(name) for name in "abc"), task("e", "a"), max_active_tasks=2),
        dag("k", task("k1", concurrency_key="k"), task("k2", concurrency_key="k")),
    )
    await start(harness, "d")
    assert await states(harness) == ["queued", "queued", "ready"]
    order = await harness.order("a")
    assert order.message.chain == ()
    await harness.report(order.result())
    assert await states(harness) == ["ready", "queued", "queued"][::-1]
    await start(harness, "k")
    assert (await states(harness))[-2:] == ["queued", "ready"]
    await harness.finish("k1")
    await harness.finish("k2")


async def test_a_task_that_needs_two_slots_lets_others_pass_meanwhile(harness):
    await harness.load(
        dag("one", task("both", pool="p", concurrency_key="k")),
        dag("two", task("plain", pool="p")),
        dag("key", task("key", concurrency_key="k")),
    )
    await harness.call(SetPool("p", 1))
    await start(harness, "key")
    await start(harness, "one")
    await start(harness, "two")
    assert await states(harness) == ["queued", "ready", "queued"]
    await harness.finish("key")
    assert await states(harness) == ["ready", "queued"]
    await harness.finish("plain")
    await harness.finish("both")
    assert {(used, waiting) for used, waiting in await counts(harness)} == {(0, 0)}


async def test_a_waiting_task_costs_no_slot_and_needs_one_to_go_on(harness):
    await harness.load(dag("d", task("w", pool="p")), dag("e", task("t", pool="p")))
    await harness.call(SetPool("p", 1))
    await start(harness, "d")
    await start(harness, "e")
    order = await harness.order("w")
    wait = Wait("event", "x://e")
    await harness.report(
        order.result(Outcome.DEFERRED, wait_set=encode(WaitSet("0", "it", (wait,))))
    )
    assert await states(harness) == ["deferred", "queued"]
    await harness.post("e")

    async def resumed():
        return (await states(harness))[0] == "ready"

    await harness.until(resumed)
    await harness.finish("t")
    again = await harness.finish("w")
    assert [step.kind for step in again.message.journal] == ["wait"]
    await harness.until_states("success", "success")


async def test_a_task_that_keeps_its_slots_has_them_while_it_waits(harness):
    own = {"concurrency_key": "k", "keeps_slots": True}
    await harness.load(dag("d", task("w", **own)), dag("e", task("t", concurrency_key="k")))
    await start(harness, "d")
    await start(harness, "e")
    order = await harness.order("w")
    waits = WaitSet("0", "it", (Wait("event", "x://e"),))
    await harness.report(order.result(Outcome.DEFERRED, wait_set=encode(waits)))
    assert await states(harness) == ["deferred", "ready"]
    assert await counts(harness) == [(1, 1)]
    await harness.post("e")
    await harness.finish("w")
    assert await counts(harness) == [(1, 0)]
    await harness.finish("t")
    assert await counts(harness) == [(0, 0)]


async def test_a_task_that_keeps_its_slots_frees_them_when_its_run_ends(harness):
    own = {"concurrency_key": "k", "keeps_slots": True}
    await harness.load(dag("d", task("w", **own)), dag("e", task("t", concurrency_key="k")))
    (run_id,) = await start(harness, "d")
    await start(harness, "e")
    order = await harness.order("w")
    waits = WaitSet("0", "it", (Wait("event", "x://e"),))
    await harness.report(order.result(Outcome.DEFERRED, wait_set=encode(waits)))
    await harness.call(CancelRun(run_id))
    await harness.finish("t")
    assert await counts(harness) == [(0, 0)]


async def test_a_task_needs_a_slot_of_each_of_its_keys(harness):
    run = FurtherKey((KeyPart("run-"), KeyPart(path=("run", "run_id"))), 2)
    each = task("each", over=(3,), concurrency_key="k", concurrency_limit=3, further_keys=(run,))
    await harness.load(dag("d", each))
    await start(harness, "d", runs=2)
    running = ["queued", "queued", "ready", "queued", "ready", "ready"]
    assert await states(harness) == running
    await harness.finish("each")
    assert await states(harness) == ["queued", "queued", "queued", "ready", "ready"]
    for _ in range(5):
        await harness.finish("each")
    await harness.until_states("success", "success")
    assert await harness.rows("SELECT * FROM slot") == []


async def test_a_retry_gives_the_slot_back_only_while_it_waits(harness):
    await harness.load(
        dag("now", task("n", pool="p", retry=RetryPolicy(1))),
        dag("later", task("l", pool="q", retry=RetryPolicy(1, delay_seconds=3600))),
        dag("x", task("x", pool="p"), task("y", pool="q")),
    )
    for pool in "pq":
        await harness.call(SetPool(pool, 1))
    for name in ("now", "later", "x"):
        await start(harness, name)
    error = TaskError("E", "no")
    await harness.finish("n", Outcome.FAILED, error=error)
    await harness.finish("l", Outcome.FAILED, error=error)
    assert await states(harness) == ["queued", "up_for_retry", "ready", "queued"]
    assert (await harness.order("n")).message.attempt == 2
    await harness.order("y")


async def test_cancelled_and_cleared_tasks_give_their_slots_back(harness):
    await harness.load(dag("d", task("t", pool="p")))
    await harness.call(SetPool("p", 1))
    first, second, third, _ = await start(harness, runs=4)
    await harness.call(CancelRun(second))
    await harness.call(CancelRun(first))
    assert await states(harness) == ["queued", "ready"]
    await harness.call(ClearTasks(third))
    assert await states(harness) == ["ready", "queued"]
    assert await counts(harness) == [(1, 1)]
    await harness.call(ClearTasks(third))
    assert await states(harness) == ["ready", "queued"]
    assert await harness.rows("SELECT attempt FROM attempt") == [(1,), (2,)]


async def test_what_a_task_waits_for_is_shown(harness):
    await harness.load(dag("d", task("a", pool="p"), task("b", pool="p"), max_active_tasks=1))
    await harness.call(SetPool("p", 1))
    (run_id,) = await start(harness)
    reading = ReadModels(harness.database)
    tasks = (await reading.tasks.page(run_id, limit=10)).items
    first, second = [task.waits_for for task in tasks]
    assert first.startswith("a worker, and none runs: ")
    assert second == "DAG d: 1 of 1 slots used, pool p: 1 of 1 slots used"
    place = await reading.tasks.find(run_id, "b", None)
    assert (await reading.tasks.get(place)).waits_for == tasks[1].waits_for


async def test_what_waits_for_a_slot_is_not_taken_for_lost(harness):
    await harness.load(dag("d", task("t", pool="p")))
    await harness.call(SetPool("p", 0))
    await start(harness)
    settings = SweeperSettings(undelivered_seconds=0.0)
    assert await Sweeper(database=harness.database, bus=harness.bus, settings=settings).sweep() == 0
    assert harness.received == []


class Recording(ManagerTransaction):
    """Notes which queries run."""

    def __init__(self, connection):
        super().__init__(connection)
        self.queries = []

    async def fetch(self, query, *arguments):
        self.queries.append(query)
        return await super().fetch(query, *arguments)


@pytest.mark.parametrize("limited", [False, True])
async def test_tasks_without_a_limit_cost_no_query_more(harness, limited):
    await harness.load(dag("d", task("t", pool="p" if limited else None)))
    item = InboxItem(StartRun("d"), done=print, failed=print)
    async with harness.database.connection() as connection, begin_transaction(connection):
        transaction = Recording(connection)
        await BatchProcessor().process([item], transaction)
    more = {name for name in transaction.queries if f"-- name: {name}\n" in OURS}
    assert bool(more) is limited, more


async def test_many_tasks_pass_a_narrow_pool_through_two_managers(pair):
    harness = pair
    harness.automatic = lambda order: [order.result()]
    await harness.load(dag("d", task("t", pool="p", over=(15,))))
    await harness.call(SetPool("p", 3))
    await start(harness, runs=2)
    await harness.quiet()
    await harness.until_states("success", "success")
    assert await counts(harness) == [(0, 0)]
