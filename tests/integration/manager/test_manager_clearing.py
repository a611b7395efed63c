"""Runs that go on: retried, cleared while they live or after they have ended."""

import anyio
import msgspec
import pytest
from dag_specs import dag, task

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.model.runs.clearing import LIFE
from pubsubflow.model.runs.waits import Wait, Waiting
from pubsubflow.model.spec import RetryPolicy
from pubsubflow.model.wire.commands import CancelRun, ClearTasks, PostEvents, StartRun
from pubsubflow.model.wire.messages import (
    Emit,
    LogMessage,
    NewEvent,
    Outcome,
    TaskError,
    decode_cancel,
    encode,
)
from pubsubflow.model.wire.subjects import Subjects

pytestmark = pytest.mark.anyio
NO = TaskError("E", "no")


async def fail(rig, task_id: str, **fields):
    return await rig.finish(task_id, Outcome.FAILED, error=NO, **fields)


async def failed_run(rig) -> str:
    """A run of a → b → c, d beside it, in which b has failed."""
    await rig.load(
        dag(
            "d", task("a", kind="sync"), task("b", "a", emits=["out"]), task("c", "b", kind="sync"),
            task("d"), params={"day": 0},
        )
    )  # fmt: skip
    run_id = await rig.call(StartRun("d", {"day": 1}), manager=0)
    await rig.finish("a", value=7)
    await rig.finish("d")
    await fail(rig, "b")
    await rig.until_states("failed")
    return run_id


def names(cleared) -> list[str]:
    return [
        each.task_id if each.map_index is None else f"{each.task_id}.{each.map_index}"
        for each in cleared.tasks
    ]


async def test_a_retry_runs_what_failed_and_keeps_what_succeeded(rig):
    run_id = await failed_run(rig)
    assert names(await rig.call(ClearTasks(run_id, ended=True, only_failed=True))) == ["b", "c"]
    assert await rig.states() == ["running"]
    order = await rig.order("b")
    assert (order.message.attempt, order.message.delivery) == (2, LIFE + 1)
    assert (order.info.params, order.info.run_id) == ({"day": 1}, run_id)
    assert order.message.chain == ()
    order.delivery.ack()
    await rig.report(order.result())
    await rig.finish("c")
    await rig.until_states("success")
    assert [order.task_id for order in rig.seen].count("a") == 1
    past = await rig.rows("SELECT node, attempt, state, error->>'type' FROM attempt ORDER BY 1")
    assert past == [(1, 1, "failed", "E")]
    assert await rig.rows("SELECT attempt FROM task ORDER BY node") == [(1,), (2,), (1,), (1,)]
    assert await rig.rows("SELECT active, queued FROM gate") == [(0, 0)]
    with pytest.raises(InvalidInput, match="none of these tasks has failed"):
        await rig.call(ClearTasks(run_id, ended=True, only_failed=True))


async def test_results_of_the_earlier_life_are_void(rig):
    await rig.load(dag("d", task("a"), task("b", "a")))
    run_id = await rig.call(StartRun("d"))
    first = await rig.order("a")
    await rig.report(first.result(then=1))
    await rig.report(first.result(chain=1))
    await rig.until_states("success")
    await rig.call(ClearTasks(run_id))
    await rig.report(first.result())
    await rig.report(first.result(chain=1))
    assert await rig.tasks() == {}
    second = await rig.order("a")
    await rig.report(second.result())
    await rig.report(first.result(chain=1))
    await rig.order("b")
    assert await rig.tasks() == {"0": "success"}


async def test_a_second_success_emits_anew_and_the_first_events_stay(rig):
    await rig.load(dag("d", task("a", emits=["out"]), on="in_"), dag("after", task("t"), on="out"))
    await rig.post("in_1")
    first = await rig.finish("a", emits=(Emit("x://out", {"n": 1}),))
    await rig.order("t")
    await rig.call(ClearTasks(first.info.run_id))
    second = await rig.finish("a", emits=(Emit("x://out", {"n": 2}),))
    assert second.events == first.events == ["in_1"]
    assert [event.extra for event in (await rig.order("t")).info.events] == [{"n": 2}]
    rows = await rig.rows(
        "SELECT extra->>'n', event_id FROM event WHERE run IS NOT NULL ORDER BY id"
    )
    assert [n for n, _ in rows] == ["1", "2"]
    assert rows[0][1] != rows[1][1]


async def test_attempts_before_a_clearing_cost_no_retry(rig):
    await rig.load(dag("d", task("a", retry=RetryPolicy(1))))
    run_id = await rig.call(StartRun("d"))
    for _ in range(2):
        await fail(rig, "a")
    await rig.until_states("failed")
    await rig.call(ClearTasks(run_id))
    await fail(rig, "a")
    order = await rig.order("a")
    assert order.message.attempt == 4
    order.delivery.ack()
    await rig.report(order.result(Outcome.FAILED, error=NO))
    await rig.until_states("failed")
    assert await rig.rows("SELECT attempt FROM attempt ORDER BY 1") == [(1,), (2,), (3,)]


async def test_logs_of_earlier_attempts_are_kept(rig):
    await rig.load(dag("d", task("a")))
    run_id = await rig.call(StartRun("d"))
    order = await rig.order("a")
    message = order.message
    piece = LogMessage(message.run, 0, -1, message.attempt, message.delivery, 0, "first")
    await rig.tell(Subjects.inbound(Subjects.LOG, message.run), piece)
    await rig.report(order.result())
    await rig.call(ClearTasks(run_id))
    message = (await rig.order("a")).message
    piece = LogMessage(message.run, 0, -1, message.attempt, message.delivery, 0, "second")
    await rig.tell(Subjects.inbound(Subjects.LOG, message.run), piece)
    assert await rig.rows("SELECT attempt, text FROM log ORDER BY 1") == [
        (1, "first"),
        (2, "second"),
    ]


async def test_what_lives_after_a_cleared_task_goes_with_it_and_is_called_off(rig):
    await rig.load(dag("d", task("a", kind="sync"), task("b", "a"), task("c")))
    run_id = await rig.call(StartRun("d"))
    await rig.finish("a")
    old, other = await rig.order("b"), await rig.order("c")
    told = []
    async with await rig.hand.subscribe(
        Subjects.CANCEL, lambda message: told.append(decode_cancel(message.data))
    ):
        assert names(await rig.call(ClearTasks(run_id, ("a",)))) == ["a", "b"]

        async def heard():
            return told

        (order,) = await rig.until(heard)
    assert (order.tasks, order.before) == (((1, -1),), LIFE + 1)
    await rig.report(old.result())
    await rig.finish("a")
    await rig.finish("b")
    await rig.report(other.result())
    await rig.until_states("success")
    assert await rig.rows("SELECT attempt FROM task ORDER BY node") == [(2,), (2,), (1,)]


@pytest.mark.parametrize(
    ("asked", "cleared"),
    [
        ({"tasks": ("b",)}, ["b"]),
        ({"tasks": ("b",), "downstream": True}, ["b", "c"]),
        ({"tasks": ("b",), "upstream": True}, ["a", "b"]),
        ({"tasks": ("a",), "downstream": True, "only_failed": True}, ["b", "c"]),
        ({}, ["a", "b", "c", "d"]),
    ],
)
async def test_what_is_cleared_is_told_before(rig, asked, cleared):
    run_id = await failed_run(rig)
    told = await rig.call(ClearTasks(run_id, dry_run=True, **asked))
    assert (names(told), told.state) == (cleared, "failed")
    assert await rig.states() == ["failed"]
    assert names(await rig.call(ClearTasks(run_id, **asked))) == cleared
    assert await rig.rows("SELECT cleared FROM run") == [(1,)]


async def test_single_instances_of_a_mapped_task_run_again(rig):
    await rig.load(dag("d", task("a"), task("m", over=("a",)), task("z", "m", inputs=("m",))))
    run_id = await rig.call(StartRun("d"))
    await rig.finish("a", value=[1, 2, 3])
    for index in range(3):
        order = await rig.order("m", map_index=index)
        order.delivery.ack()
        bad = index == 1
        await rig.report(order.result("failed" if bad else "success", error=NO if bad else None))
    await rig.until_states("failed")
    cleared = await rig.call(ClearTasks(run_id, ended=True, only_failed=True))
    assert names(cleared) == ["m.1", "z"]
    order = await rig.order("m")
    assert (order.message.map_index, order.elements) == (1, {"arg0": 2})
    await rig.report(order.result(value=20))
    assert (await rig.finish("z")).inputs == {1: [None, 20, None]}
    await rig.until_states("success")
    assert names(await rig.call(ClearTasks(run_id, ("m.0", "m.2")))) == ["m.0", "m.2"]
    for _ in range(2):
        await rig.finish("m")
    await rig.until_states("success")
    with pytest.raises(NotFound, match=r"no task named 'm\.x'"):
        await rig.call(ClearTasks(run_id, ("m.x",)))
    with pytest.raises(InvalidInput, match="nothing to clear"):
        await rig.call(ClearTasks(run_id, ("m.7",)))


async def test_what_a_branch_left_out_stays_so_unless_the_branch_is_cleared(rig):
    await rig.load(dag("d", task("b", role="branch"), task("left", "b"), task("right", "b")))
    run_id = await rig.call(StartRun("d"))
    await rig.finish("b", follow=("left",), value="left")
    await rig.finish("left")
    await rig.until_states("success")
    await rig.call(ClearTasks(run_id, ("left", "right")))
    await rig.finish("left")
    await rig.until_states("success")
    assert await rig.tasks() == {"0": "success", "1": "success", "2": "skipped"}
    await rig.call(ClearTasks(run_id, ("b",), downstream=True))
    await rig.finish("b", follow=("right",), value="right")
    await rig.finish("right")
    await rig.until_states("success")
    assert await rig.tasks() == {"0": "success", "1": "skipped", "2": "success"}


async def test_a_cleared_task_begins_with_an_empty_record_and_its_wait_is_over(rig):
    await rig.load(dag("d", task("a")))
    run_id = await rig.call(StartRun("d"))
    order = await rig.order("a")
    wait = Wait("time", "sleep", delay_seconds=3600.0)
    await rig.report(order.result(Outcome.DEFERRED, waiting=encode(Waiting("0", "it", (wait,)))))
    await rig.rows(
        "INSERT INTO step (run, node, map_index, key, label, kind, value)"
        " SELECT id, 0, -1, '9', 's', 'step', '' FROM run"
    )
    await rig.call(ClearTasks(run_id, ("a",)))
    for table in ("step", "trigger", "timer"):
        assert await rig.value(f"SELECT count(*) FROM {table}") == 0
    order = await rig.order("a", attempt=2)
    assert order.message.steps == ()
    assert await rig.rows("SELECT attempt, state FROM attempt") == [(1, "cleared")]


async def test_a_run_over_the_limit_of_its_dag_queues_again_in_order(rig):
    await rig.load(dag("d", task("a"), max_active_runs=1))
    first = await rig.call(StartRun("d", run_key="1"))
    await fail(rig, "a")
    await rig.until_states("failed")
    for key in "23":
        await rig.call(StartRun("d", run_key=key))
    assert (await rig.call(ClearTasks(first))).state == "queued"
    assert await rig.tasks() == {}
    with pytest.raises(InvalidInput, match="has not started"):
        await rig.call(ClearTasks(first))
    seen = [(await rig.finish("a")).info.run_id for _ in range(3)]
    assert seen[2] == first
    await rig.until_states("success", "success", "success")
    assert await rig.rows("SELECT active, queued FROM gate") == [(0, 0)]


async def test_a_cleared_run_that_is_cancelled_in_line_can_be_cleared_again(rig):
    await rig.load(dag("d", task("m", over=(2,)), max_active_runs=1), dag("e", task("t")))
    first = await rig.call(StartRun("d", run_key="1"))
    for _ in range(2):
        await rig.finish("m")
    await rig.call(StartRun("d", run_key="2"))
    await rig.call(ClearTasks(first, ("m.1",)))
    await rig.call(CancelRun(first))
    assert await rig.tasks() == {"0.0": "success", "0.1": "cancelled"}
    for _ in range(2):
        await rig.finish("m")
    assert names(await rig.call(ClearTasks(first, only_failed=True, ended=True))) == ["m.1"]
    assert (await rig.finish("m")).message.map_index == 1
    await rig.until_states("success", "success", dag_id="d")


async def test_a_cancelled_run_goes_on_where_it_was(rig):
    await rig.load(dag("d", task("a", kind="sync"), task("b", "a"), task("c", "b", kind="sync")))
    run_id = await rig.call(StartRun("d"))
    await rig.finish("a")
    await rig.call(CancelRun(run_id))
    assert names(await rig.call(ClearTasks(run_id, only_failed=True, ended=True))) == ["b"]
    await rig.order("b", attempt=1)
    await rig.finish("b")
    await rig.finish("c")
    await rig.until_states("success")


async def test_clearings_at_the_same_moment_come_one_after_the_other(pair):
    rig = pair
    run_id = await failed_run(rig)

    async def clear(manager: int, *tasks: str) -> None:
        await rig.call(ClearTasks(run_id, tasks), manager=manager)

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(clear, number % 2, *("ad"[number % 3 % 2],))
    assert await rig.rows("SELECT cleared, state FROM run") == [(6, "running")]
    rig.automatic = lambda order: [order.result()]
    for order in rig.orders:
        rig.answer(order, [order.result()])
    await rig.quiet()
    await rig.until_states("failed")
    assert await rig.tasks() == {
        "0": "success",
        "1": "failed",
        "2": "upstream_failed",
        "3": "success",
    }
    assert await rig.rows("SELECT active, queued FROM gate") == [(0, 0)]


async def test_only_one_of_two_retries_at_the_same_moment_does_it(pair):
    rig = pair
    run_id = await failed_run(rig)
    refused = []

    async def retry(manager: int) -> None:
        try:
            await rig.call(ClearTasks(run_id, ended=True, only_failed=True), manager=manager)
        except InvalidInput as error:
            refused.append(str(error))

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(retry, number % 2)
    assert len(refused) == 3
    assert await rig.rows("SELECT cleared FROM run") == [(1,)]


async def test_a_run_that_has_not_ended_is_cleared_not_retried(rig):
    await rig.load(dag("d", task("a")))
    run_id = await rig.call(StartRun("d"))
    with pytest.raises(InvalidInput, match="has not ended"):
        await rig.call(ClearTasks(run_id, ended=True, only_failed=True))
    with pytest.raises(InvalidInput, match="its version cannot change"):
        await rig.call(ClearTasks(run_id, newest=True))


async def test_the_newest_version_runs_if_every_task_keeps_its_place(rig):
    run_id = await failed_run(rig)
    spec = dag(
        "d", task("a", kind="sync"), task("b", "a", emits=["out"]), task("c", "b", kind="sync"),
        task("d"), task("e"), source="new", params={"day": 0},
    )  # fmt: skip
    await rig.load(spec)
    await rig.call(ClearTasks(run_id, ("b",), newest=True))
    order = await rig.order("b")
    assert order.message.source == "new"
    await rig.order("e")  # it has not run yet
    await rig.call(CancelRun(run_id))
    await rig.load(dag("d", task("d"), source="newer"))
    with pytest.raises(InvalidInput, match="have changed places"):
        await rig.call(ClearTasks(run_id, ("b",), newest=True))


async def test_tasks_see_the_same_run_again(rig):
    await rig.load(dag("d", task("a"), on="in_"))
    await rig.call(
        PostEvents(tuple(NewEvent("x://in_", {"name": "x" * 1000}) for _ in range(3)), (None,) * 3)
    )
    order = await rig.finish("a")
    await rig.call(ClearTasks(order.info.run_id))
    again = await rig.order("a", attempt=2)
    made = order.info.created_at  # by the clock that started it, not by the database's
    assert msgspec.structs.replace(again.info, created_at=made) == order.info


async def test_unknown_runs_are_told(rig):
    with pytest.raises(NotFound):
        await rig.call(ClearTasks("00000000-0000-0000-0000-000000000001"))
