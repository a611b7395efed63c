"""Runs whose tasks people mark: while they run, after they have ended, and while they wait."""

import pytest

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.model.runs.fences import DELIVERIES_PER_CLEARING
from pubsubflow.model.wire.commands import CancelRun, ClearTasks, MarkTasks, StartRun
from pubsubflow.model.wire.messages import Outcome, TaskError, decode_cancel, encode
from pubsubflow.model.wire.subjects import Subjects
from support.specs import dag, task

pytestmark = pytest.mark.anyio
NO = TaskError("E", "no")


def named(tasks):
    return [(each.task_id, each.state) for each in tasks]


async def failed_run(harness, **options):
    """A run of a → b → c, b emits, in which a has failed; another DAG waits for b's events."""
    await harness.load(
        dag("d", task("a"), task("b", "a", emits=["out"]), task("c", "b"), **options),
        dag("after", task("t"), on="out"),
    )
    run_id = await harness.call(StartRun("d"))
    await harness.finish("a", Outcome.FAILED, error=NO)
    await harness.until_states("failed")
    return run_id


async def test_what_could_not_start_runs_once_its_upstream_is_marked(harness):
    run_id = await failed_run(harness)
    wanted = MarkTasks(run_id, "success", ("a",), result=encode([7]))
    planned = await harness.call(MarkTasks(run_id, "success", ("a",), dry_run=True))
    assert (named(planned.tasks), planned.state) == ([("a", "failed")], "failed")
    assert named(planned.anew) == [("b", "upstream_failed"), ("c", "upstream_failed")]
    assert await harness.states() == ["failed"]
    assert (await harness.call(wanted)).state == "running"
    await harness.finish("b")
    await harness.finish("t")
    await harness.finish("c")
    await harness.until_states("success", dag_id="d")
    rows = await harness.rows(
        "SELECT node, state, attempt, error, length FROM task"
        " WHERE run = (SELECT id FROM run WHERE run_id = $1)",
        run_id,
    )
    assert sorted(rows) == [
        (0, "success", 1, None, 1),
        (1, "success", 1, None, None),
        (2, "success", 1, None, None),
    ]
    # How it had failed is kept.
    assert await harness.rows("SELECT state, error->>'type' FROM attempt") == [("failed", "E")]
    with pytest.raises(InvalidInput, match="nothing to mark"):
        await harness.call(wanted)
    with pytest.raises(NotFound):
        await harness.call(MarkTasks(run_id, "success", ("x",)))


async def test_a_marked_task_that_runs_is_stopped_and_its_result_is_void(harness):
    await harness.load(dag("d", task("a"), task("b", "a")))
    run_id = await harness.call(StartRun("d"))
    old = await harness.order("a")
    orders = []
    async with await harness.worker_bus.subscribe(
        Subjects.CANCEL, lambda message: orders.append(decode_cancel(message.data))
    ):
        marked = await harness.call(MarkTasks(run_id, "success", ("a",)))
        assert named(marked.tasks) == [("a", "queued")]

        async def heard():
            return orders

        (order,) = await harness.until(heard)
    assert (order.tasks, order.below_delivery) == (((0, -1),), DELIVERIES_PER_CLEARING + 1)
    await harness.report(old.result(outcome=Outcome.FAILED, error=NO))
    await harness.finish("b")
    await harness.until_states("success")
    assert await harness.tasks() == {"0": "success", "1": "success"}


async def test_a_task_marked_before_it_starts_does_not_run_in_its_chain_either(harness):
    await harness.load(dag("d", task("a"), task("b", "a"), task("c", "b")))
    run_id = await harness.call(StartRun("d"))
    first = await harness.order("a")
    assert named((await harness.call(MarkTasks(run_id, "skipped", ("b", "c")))).tasks) == [
        ("b", "none"),
        ("c", "none"),
    ]
    orders = []
    async with await harness.worker_bus.subscribe(
        Subjects.CANCEL, lambda message: orders.append(decode_cancel(message.data))
    ):
        await harness.report(first.result(then=1))

        async def heard():
            return orders

        (order,) = await harness.until(heard)
    assert order.tasks == ((1, -1),)
    await harness.until_states("success")
    assert await harness.tasks() == {"0": "success", "1": "skipped", "2": "skipped"}


@pytest.mark.parametrize("emit", [False, True])
async def test_a_success_by_mark_emits_only_if_people_say_so(harness, emit):
    run_id = await failed_run(harness)
    marked = await harness.call(MarkTasks(run_id, "success", emit=emit))
    assert (len(marked.tasks), marked.state) == (3, "success")
    assert await harness.states(dag_id="d") == ["success"]
    assert await harness.value("SELECT count(*) FROM event") == int(emit)
    if emit:
        assert len((await harness.finish("t")).info.events) == 1
    assert await harness.rows("SELECT active, queued FROM dag_state ORDER BY dag LIMIT 1") == [
        (0, 0)
    ]


async def test_a_run_is_marked_as_failed_while_it_runs_and_after(harness):
    await harness.load(dag("d", task("a"), task("b", "a")))
    first, second = [await harness.call(StartRun("d")) for _ in range(2)]
    assert (await harness.call(MarkTasks(first, "failed", reason="no good"))).state == "failed"
    assert await harness.value("SELECT error FROM run WHERE run_id = $1", first) == "no good"
    await harness.call(MarkTasks(second, "success"))
    marked = await harness.call(MarkTasks(second, "failed", reason="the numbers are wrong"))
    assert (named(marked.tasks), marked.state) == ([("b", "success")], "failed")
    error = await harness.value("SELECT error->>'message' FROM task WHERE state = 'failed'")
    assert error == "the numbers are wrong"
    # It is a run like any other: what was marked may run again.
    await harness.call(ClearTasks(second, only_failed=True))
    assert await harness.states() == ["failed", "running"]


async def test_a_run_marked_over_the_limit_waits_for_its_turn(harness):
    run_id = await failed_run(harness, max_active_runs=1)
    other = await harness.call(StartRun("d"))
    marked = await harness.call(MarkTasks(run_id, "success", ("a", "b"), emit=True))
    assert marked.state == "queued"
    await harness.finish("t")  # its events do not wait
    await harness.call(CancelRun(other))
    await harness.finish("c")
    await harness.until_states("success", "cancelled", dag_id="d")
    with pytest.raises(InvalidInput, match="cleared meanwhile"):
        await harness.call(MarkTasks(run_id, "failed", cleared=0))
