"""Limits of tags: DAGs that have a tag share slots, from the moment at which these are set."""

import pytest

from pubsubflow.model.limits.keys import KeyPart
from pubsubflow.model.wire.commands import CancelRun, DeletePool, SetPool, StartRun
from pubsubflow.store.read.read_models import ReadModels
from support.harness import chain_of
from support.specs import dag, task

pytestmark = pytest.mark.anyio
HEAVY = "tag:heavy"
LIVE = "SELECT state FROM task_live"
LINE = [task("x"), task("y", inputs=["x"])]


async def states(harness):
    return sorted(state for (state,) in await harness.rows(LIVE))


async def test_dags_with_a_tag_share_its_slots_and_others_do_not_queue(pair):
    await pair.load(
        dag("a", task("a"), tags=("heavy",)),
        dag("b", task("b", pool="p"), tags=("night", "heavy")),
        dag("c", task("c")),
    )
    await pair.call(SetPool(HEAVY, 2), manager=1)
    runs = [
        await pair.call(StartRun(name), manager=number % 2) for number, name in enumerate("abcab")
    ]
    assert await states(pair) == ["queued", "queued", "queued", "ready", "ready"]
    models = ReadModels(pair.database)
    pool = await models.pools.get(HEAVY)
    assert (pool.slots, pool.used, pool.waiting) == (2, 2, 2)
    (waiting,) = (await models.tasks.page(runs[4], limit=5)).items
    assert waiting.waits_for == "tag heavy: 2 of 2 slots used"
    await pair.finish("a")
    assert await states(pair) == ["queued", "queued", "queued", "ready"]
    for task_id in "bcab":
        await pair.finish(task_id)
    assert await pair.rows("SELECT * FROM slot") == []


async def test_what_runs_when_a_limit_is_set_counts_and_its_end_starts_what_waits(pair):
    await pair.load(dag("d", *LINE, tags=("heavy",)), dag("e", task("e"), tags=("heavy",)))
    await pair.call(StartRun("d"))
    await pair.call(StartRun("e"))
    chained = await pair.order("x")
    assert chained.message.chain == (1,)
    await pair.call(SetPool(HEAVY, 1))
    await pair.call(StartRun("e"), manager=1)
    assert await states(pair) == ["queued", "queued", "ready"]
    first, last = chain_of(chained)
    await pair.report(first)  # its runner goes straight on, as it was ordered to before
    assert await states(pair) == ["queued", "ready", "running"]
    assert (await ReadModels(pair.database).pools.get(HEAVY)).used == 2
    await pair.report(last)
    assert await states(pair) == ["queued", "ready"]
    run_id = await pair.call(StartRun("d"))
    await pair.call(DeletePool(HEAVY))
    assert await states(pair) == ["queued", "queued", "queued"]
    assert await pair.rows("SELECT * FROM slot") == []
    assert (await pair.order(run=(await pair.run_number(run_id)))).message.chain == (1,)
    await pair.call(SetPool(HEAVY, 0))
    assert await pair.value("SELECT count(*) FROM slot WHERE held") == 3
    await pair.call(CancelRun(run_id))
    assert await pair.value("SELECT used FROM wait_queue") == 2


async def test_a_task_under_a_rendered_key_goes_on_when_the_limit_of_its_tag_is_gone(harness):
    keyed = task(
        "t",
        concurrency_key="{{ params.tenant }}",
        key_parts=(KeyPart(path=("params", "tenant")),),
        concurrency_limit=1,
    )
    await harness.load(dag("d", keyed, params={"tenant": "k"}, tags=("heavy",)))
    await harness.call(SetPool(HEAVY, 1))
    for tenant in "kll":
        await harness.call(StartRun("d", {"tenant": tenant}))
    assert await states(harness) == ["queued", "ready", "ready"]
    await harness.call(DeletePool(HEAVY))
    assert await states(harness) == ["queued", "queued", "ready"]
    for _ in "kll":
        await harness.finish("t")
    assert await harness.rows("SELECT * FROM slot") == []


async def test_a_limit_beside_others_comes_and_goes(harness):
    pooled = task("p", pool="p", concurrency_key="k", concurrency_limit=3)
    await harness.load(dag("d", pooled, tags=("heavy",)), dag("o", pooled))
    await harness.call(SetPool("p", 2))
    for name in "dodd":
        await harness.call(StartRun(name))
    assert await states(harness) == ["queued", "queued", "ready", "ready"]
    await harness.call(SetPool(HEAVY, 1))
    await harness.finish("p")
    await harness.finish("p")
    assert await states(harness) == ["queued", "ready"]
    await harness.call(DeletePool(HEAVY))
    assert await states(harness) == ["queued", "queued"]
    limits = await harness.rows("SELECT limits FROM wait_queue WHERE used > 0")
    assert limits == [(["key:k", "pool:p"],)]
    for _ in range(2):
        await harness.finish("p")
    assert await harness.rows("SELECT * FROM slot") == []
