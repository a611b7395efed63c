"""Runs that go on: retried, cleared while they live or after they have ended."""

import anyio
import msgspec
import pytest

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.model.runs import progress
from pubsubflow.model.runs.fences import DELIVERIES_PER_CLEARING
from pubsubflow.model.spec import RetryPolicy
from pubsubflow.model.wire.commands import CancelRun, ClearTasks, RecordEvents, StartRun
from pubsubflow.model.wire.messages import (
    EmittedEvent,
    LogMessage,
    NewEvent,
    Outcome,
    TaskError,
    decode_cancel,
    encode,
)
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.model.wire.waits import Wait, WaitSet
from support.specs import dag, task

pytestmark = pytest.mark.anyio
NO = TaskError("E", "no")


async def fail(harness, task_id: str, **fields):
    return await harness.finish(task_id, Outcome.FAILED, error=NO, **fields)


async def failed_run(harness) -> str:
    """A run of a → b → c, d beside it, in which b has failed."""
    await harness.load(
        dag(
            "d", task("a", kind="sync"), task("b", "a", emits=["out"]), task("c", "b", kind="sync"),
            task("d"), params={"day": 0},
        )
    )  # fmt: skip
    run_id = await harness.call(StartRun("d", {"day": 1}), manager=0)
    await harness.finish("a", value=7)
    await harness.finish("d")
    await fail(harness, "b")
    await harness.until_states("failed")
    return run_id


def names(cleared) -> list[str]:
    return [
        each.task_id if each.map_index is None else f"{each.task_id}.{each.map_index}"
        for each in cleared.tasks
    ]


async def test_a_retry_runs_what_failed_and_keeps_what_succeeded(harness):
    run_id = await failed_run(harness)
    assert names(await harness.call(ClearTasks(run_id, ended=True, only_failed=True))) == ["b", "c"]
    assert await harness.states() == ["running"]
    order = await harness.order("b")
    assert (order.message.attempt, order.message.delivery) == (2, DELIVERIES_PER_CLEARING + 1)
    assert (order.info.params, order.info.run_id) == ({"day": 1}, run_id)
    assert order.message.chain == ()
    order.delivery.ack()
    await harness.report(order.result())
    await harness.finish("c")
    await harness.until_states("success")
    assert [order.task_id for order in harness.received].count("a") == 1
    past = await harness.rows("SELECT node, attempt, state, error->>'type' FROM attempt ORDER BY 1")
    assert past == [(1, 1, "failed", "E")]
    assert await harness.rows("SELECT attempt FROM task ORDER BY node") == [(1,), (2,), (1,), (1,)]
    assert await harness.rows("SELECT active, queued FROM dag_state") == [(0, 0)]
    with pytest.raises(InvalidInput, match="none of these tasks has failed"):
        await harness.call(ClearTasks(run_id, ended=True, only_failed=True))


async def test_results_of_the_earlier_life_are_void(harness):
    await harness.load(dag("d", task("a"), task("b", "a")))
    run_id = await harness.call(StartRun("d"))
    first = await harness.order("a")
    await harness.report(first.result(then=1))
    await harness.report(first.result(chain=1))
    await harness.until_states("success")
    await harness.call(ClearTasks(run_id))
    await harness.report(first.result())
    await harness.report(first.result(chain=1))
    assert await harness.tasks() == {}
    second = await harness.order("a")
    await harness.report(second.result())
    await harness.report(first.result(chain=1))
    await harness.order("b")
    assert await harness.tasks() == {"0": "success"}


async def test_a_second_success_emits_anew_and_the_first_events_stay(harness):
    await harness.load(
        dag("d", task("a", emits=["out"]), on="in_"), dag("after", task("t"), on="out")
    )
    await harness.post("in_1")
    first = await harness.finish("a", emits=(EmittedEvent("x://out", {"n": 1}),))
    await harness.order("t")
    await harness.call(ClearTasks(first.info.run_id))
    second = await harness.finish("a", emits=(EmittedEvent("x://out", {"n": 2}),))
    assert second.events == first.events == ["in_1"]
    assert [event.extra for event in (await harness.order("t")).info.events] == [{"n": 2}]
    rows = await harness.rows(
        "SELECT extra->>'n', event_id FROM event WHERE run IS NOT NULL ORDER BY id"
    )
    assert [n for n, _ in rows] == ["1", "2"]
    assert rows[0][1] != rows[1][1]


async def test_attempts_before_a_clearing_cost_no_retry(harness):
    await harness.load(dag("d", task("a", retry=RetryPolicy(1))))
    run_id = await harness.call(StartRun("d"))
    for _ in range(2):
        await fail(harness, "a")
    await harness.until_states("failed")
    await harness.call(ClearTasks(run_id))
    await fail(harness, "a")
    order = await harness.order("a")
    assert order.message.attempt == 4
    order.delivery.ack()
    await harness.report(order.result(Outcome.FAILED, error=NO))
    await harness.until_states("failed")
    assert await harness.rows("SELECT attempt FROM attempt ORDER BY 1") == [(1,), (2,), (3,)]


async def test_logs_of_earlier_attempts_are_kept(harness):
    await harness.load(dag("d", task("a")))
    run_id = await harness.call(StartRun("d"))
    order = await harness.order("a")
    message = order.message
    piece = LogMessage(message.run, 0, -1, message.attempt, message.delivery, 0, "first")
    await harness.publish(Subjects.inbound(Subjects.LOG, message.run), piece)
    await harness.report(order.result())
    await harness.call(ClearTasks(run_id))
    message = (await harness.order("a")).message
    piece = LogMessage(message.run, 0, -1, message.attempt, message.delivery, 0, "second")
    await harness.publish(Subjects.inbound(Subjects.LOG, message.run), piece)
    assert await harness.rows("SELECT attempt, text FROM log ORDER BY 1") == [
        (1, "first"),
        (2, "second"),
    ]


async def test_what_lives_after_a_cleared_task_goes_with_it_and_is_called_off(harness):
    await harness.load(dag("d", task("a", kind="sync"), task("b", "a"), task("c")))
    run_id = await harness.call(StartRun("d"))
    await harness.finish("a")
    old, other = await harness.order("b"), await harness.order("c")
    orders = []
    async with await harness.worker_bus.subscribe(
        Subjects.CANCEL, lambda message: orders.append(decode_cancel(message.data))
    ):
        assert names(await harness.call(ClearTasks(run_id, ("a",)))) == ["a", "b"]

        async def heard():
            return orders

        (order,) = await harness.until(heard)
    assert (order.tasks, order.below_delivery) == (((1, -1),), DELIVERIES_PER_CLEARING + 1)
    await harness.report(old.result())
    await harness.finish("a")
    await harness.finish("b")
    await harness.report(other.result())
    await harness.until_states("success")
    assert await harness.rows("SELECT attempt FROM task ORDER BY node") == [(2,), (2,), (1,)]


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
async def test_a_dry_run_says_what_is_cleared(harness, asked, cleared):
    run_id = await failed_run(harness)
    planned = await harness.call(ClearTasks(run_id, dry_run=True, **asked))
    assert (names(planned), planned.state) == (cleared, "failed")
    assert await harness.states() == ["failed"]
    assert names(await harness.call(ClearTasks(run_id, **asked))) == cleared
    assert await harness.rows("SELECT clear_number FROM run") == [(1,)]


async def test_single_instances_of_a_mapped_task_run_again(harness):
    await harness.load(dag("d", task("a"), task("m", over=("a",)), task("z", "m", inputs=("m",))))
    run_id = await harness.call(StartRun("d"))
    await harness.finish("a", value=[1, 2, 3])
    for index in range(3):
        order = await harness.order("m", map_index=index)
        order.delivery.ack()
        bad = index == 1
        await harness.report(
            order.result("failed" if bad else "success", error=NO if bad else None)
        )
    await harness.until_states("failed")
    cleared = await harness.call(ClearTasks(run_id, ended=True, only_failed=True))
    assert names(cleared) == ["m.1", "z"]
    order = await harness.order("m")
    assert (order.message.map_index, order.elements) == (1, {"arg0": 2})
    await harness.report(order.result(value=20))
    assert (await harness.finish("z")).inputs == {1: [None, 20, None]}
    await harness.until_states("success")
    assert names(await harness.call(ClearTasks(run_id, ("m.0", "m.2")))) == ["m.0", "m.2"]
    for _ in range(2):
        await harness.finish("m")
    await harness.until_states("success")
    with pytest.raises(NotFound, match=r"no task named 'm\.x'"):
        await harness.call(ClearTasks(run_id, ("m.x",)))
    with pytest.raises(InvalidInput, match="nothing to clear"):
        await harness.call(ClearTasks(run_id, ("m.7",)))


async def test_a_large_mapped_task_is_made_in_parts_and_cleared_as_a_whole(harness, monkeypatch):
    monkeypatch.setattr(progress, "MAP_WINDOW", 2)
    await harness.load(dag("d", task("a"), task("m", over=("a",)), task("z", "m", inputs=("m",))))
    run_id = await harness.call(StartRun("d"))
    await harness.finish("a", value=[10, 11, 12, 13, 14])
    await harness.finish("m")
    assert await harness.value("SELECT count(*) FROM task_live") == 2
    await harness.call(CancelRun(run_id))
    await harness.until_states("cancelled")
    states = await harness.tasks()
    assert [states[f"1.{index}"] for index in range(5)].count("cancelled") == 4
    harness.orders.clear()
    await harness.call(ClearTasks(run_id, ended=True, only_failed=True))
    for _ in range(4):
        await harness.finish("m", value=1)
    order = await harness.finish("z")
    assert len(order.inputs[1]) == 5
    await harness.until_states("success")


async def test_what_a_branch_left_out_stays_so_unless_the_branch_is_cleared(harness):
    await harness.load(dag("d", task("b", role="branch"), task("left", "b"), task("right", "b")))
    run_id = await harness.call(StartRun("d"))
    await harness.finish("b", follow=("left",), value="left")
    await harness.finish("left")
    await harness.until_states("success")
    await harness.call(ClearTasks(run_id, ("left", "right")))
    await harness.finish("left")
    await harness.until_states("success")
    assert await harness.tasks() == {"0": "success", "1": "success", "2": "skipped"}
    await harness.call(ClearTasks(run_id, ("b",), downstream=True))
    await harness.finish("b", follow=("right",), value="right")
    await harness.finish("right")
    await harness.until_states("success")
    assert await harness.tasks() == {"0": "success", "1": "skipped", "2": "success"}


async def test_a_cleared_task_begins_with_an_empty_record_and_its_wait_is_over(harness):
    await harness.load(dag("d", task("a")))
    run_id = await harness.call(StartRun("d"))
    order = await harness.order("a")
    wait = Wait("time", "sleep", delay_seconds=3600.0)
    await harness.report(
        order.result(Outcome.DEFERRED, wait_set=encode(WaitSet("0", "it", (wait,))))
    )
    await harness.rows(
        "INSERT INTO journal_entry (run, node, map_index, key, label, kind, value)"
        " SELECT id, 0, -1, '9', 's', 'step', '' FROM run"
    )
    await harness.call(ClearTasks(run_id, ("a",)))
    for table in ("journal_entry", "trigger", "timer"):
        assert await harness.value(f"SELECT count(*) FROM {table}") == 0
    order = await harness.order("a", attempt=2)
    assert order.message.journal == ()
    assert await harness.rows("SELECT attempt, state FROM attempt") == [(1, "cleared")]


async def test_a_run_over_the_limit_of_its_dag_queues_again_in_order(harness):
    await harness.load(dag("d", task("a"), max_active_runs=1))
    first = await harness.call(StartRun("d", run_key="1"))
    await fail(harness, "a")
    await harness.until_states("failed")
    for key in "23":
        await harness.call(StartRun("d", run_key=key))
    assert (await harness.call(ClearTasks(first))).state == "queued"
    assert await harness.tasks() == {}
    with pytest.raises(InvalidInput, match="has not started"):
        await harness.call(ClearTasks(first))
    seen = [(await harness.finish("a")).info.run_id for _ in range(3)]
    assert seen[2] == first
    await harness.until_states("success", "success", "success")
    assert await harness.rows("SELECT active, queued FROM dag_state") == [(0, 0)]


async def test_a_cleared_run_that_is_cancelled_in_line_can_be_cleared_again(harness):
    await harness.load(dag("d", task("m", over=(2,)), max_active_runs=1), dag("e", task("t")))
    first = await harness.call(StartRun("d", run_key="1"))
    for _ in range(2):
        await harness.finish("m")
    await harness.call(StartRun("d", run_key="2"))
    await harness.call(ClearTasks(first, ("m.1",)))
    await harness.call(CancelRun(first))
    assert await harness.tasks() == {"0.0": "success", "0.1": "cancelled"}
    for _ in range(2):
        await harness.finish("m")
    assert names(await harness.call(ClearTasks(first, only_failed=True, ended=True))) == ["m.1"]
    assert (await harness.finish("m")).message.map_index == 1
    await harness.until_states("success", "success", dag_id="d")


async def test_a_cancelled_run_goes_on_where_it_was(harness):
    await harness.load(
        dag("d", task("a", kind="sync"), task("b", "a"), task("c", "b", kind="sync"))
    )
    run_id = await harness.call(StartRun("d"))
    await harness.finish("a")
    await harness.call(CancelRun(run_id))
    assert names(await harness.call(ClearTasks(run_id, only_failed=True, ended=True))) == ["b"]
    await harness.order("b", attempt=1)
    await harness.finish("b")
    await harness.finish("c")
    await harness.until_states("success")


async def test_clearings_at_the_same_moment_come_one_after_the_other(pair):
    harness = pair
    run_id = await failed_run(harness)

    async def clear(manager: int, *tasks: str) -> None:
        await harness.call(ClearTasks(run_id, tasks), manager=manager)

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(clear, number % 2, *("ad"[number % 3 % 2],))
    assert await harness.rows("SELECT clear_number, state FROM run") == [(6, "running")]
    harness.automatic = lambda order: [order.result()]
    for order in harness.orders:
        harness.answer(order, [order.result()])
    await harness.quiet()
    await harness.until_states("failed")
    assert await harness.tasks() == {
        "0": "success",
        "1": "failed",
        "2": "upstream_failed",
        "3": "success",
    }
    assert await harness.rows("SELECT active, queued FROM dag_state") == [(0, 0)]


async def test_only_one_of_two_retries_at_the_same_moment_does_it(pair):
    harness = pair
    run_id = await failed_run(harness)
    refused = []

    async def retry(manager: int) -> None:
        try:
            await harness.call(ClearTasks(run_id, ended=True, only_failed=True), manager=manager)
        except InvalidInput as error:
            refused.append(str(error))

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(retry, number % 2)
    assert len(refused) == 3
    assert await harness.rows("SELECT clear_number FROM run") == [(1,)]


async def test_a_run_that_has_not_ended_is_cleared_not_retried(harness):
    await harness.load(dag("d", task("a")))
    run_id = await harness.call(StartRun("d"))
    with pytest.raises(InvalidInput, match="has not ended"):
        await harness.call(ClearTasks(run_id, ended=True, only_failed=True))
    with pytest.raises(InvalidInput, match="its version cannot change"):
        await harness.call(ClearTasks(run_id, newest=True))


async def test_the_newest_version_runs_if_every_task_keeps_its_place(harness):
    run_id = await failed_run(harness)
    spec = dag(
        "d", task("a", kind="sync"), task("b", "a", emits=["out"]), task("c", "b", kind="sync"),
        task("d"), task("e"), source="new", params={"day": 0},
    )  # fmt: skip
    await harness.load(spec)
    await harness.call(ClearTasks(run_id, ("b",), newest=True))
    order = await harness.order("b")
    assert order.message.source == await harness.value("SELECT source FROM dag_state")
    await harness.order("e")  # it has not run yet
    await harness.call(CancelRun(run_id))
    await harness.load(dag("d", task("d"), source="newer"))
    with pytest.raises(InvalidInput, match="have changed places"):
        await harness.call(ClearTasks(run_id, ("b",), newest=True))


async def test_tasks_see_the_same_run_again(harness):
    await harness.load(dag("d", task("a"), on="in_"))
    await harness.call(
        RecordEvents(
            tuple(NewEvent("x://in_", {"name": "x" * 1000}) for _ in range(3)), (None,) * 3
        )
    )
    order = await harness.finish("a")
    await harness.call(ClearTasks(order.info.run_id))
    again = await harness.order("a", attempt=2)
    made = order.info.created_at  # by the clock that started it, not by the database's
    assert msgspec.structs.replace(again.info, created_at=made) == order.info


async def test_unknown_runs_are_refused(harness):
    with pytest.raises(NotFound):
        await harness.call(ClearTasks("00000000-0000-0000-0000-000000000001"))


async def test_a_task_with_nothing_to_run_emits_again_when_its_run_is_opened_again(harness):
    await harness.load(
        dag("d", task("a", kind="empty", emits=["y"]), task("b", "a")), dag("e", task("t"), on="y")
    )
    run_id = await harness.call(StartRun("d"))
    await harness.finish("b")
    await harness.finish("t")
    await harness.until_states("success", "success")
    cleared = await harness.call(ClearTasks(run_id, ("a",)))
    assert names(cleared) == ["a"]
    await harness.finish("t")
    await harness.until_states("success", "success", dag_id="e")
    assert await harness.value("SELECT count(*) FROM event") == 2


def cluster():
    return dag(
        "d",
        task("make", role="setup"),
        task("work", "make"),
        task("after", "work"),
        task("drop", "make", "work", role="teardown", trigger_rule="all_done_setup_success"),
        timeout_seconds=3600.0,
    )


async def test_a_cancelled_run_still_cleans_up(harness):
    await harness.load(cluster())
    run_id = await harness.call(StartRun("d"))
    await harness.finish("make")
    work = await harness.order("work")
    work.delivery.ack()
    await harness.call(CancelRun(run_id, "enough"))
    assert await harness.states() == ["running"]
    await harness.report(work.result())  # too late
    await harness.finish("drop")
    await harness.until_states("cancelled")
    ended = {(0, "success"), (1, "cancelled"), (3, "success")}
    assert {tuple(row) for row in await harness.rows("SELECT node, state FROM task")} == ended
    assert await harness.value("SELECT error FROM run") == "enough"
    assert await harness.value("SELECT active FROM dag_state") == 0
    # What was cancelled may run again.
    await harness.call(ClearTasks(run_id, only_failed=True))
    for name in ("make", "work", "after", "drop"):
        await harness.finish(name)
    await harness.until_states("success")


async def test_a_run_that_is_cancelled_twice_ends_at_once(harness):
    await harness.load(cluster())
    run_id = await harness.call(StartRun("d"))
    await harness.call(CancelRun(run_id, "nothing is made yet"))
    assert await harness.states() == ["cancelled"]
    again = await harness.call(StartRun("d"))
    make = await harness.order("make", run=await harness.value("SELECT max(id) FROM run"))
    make.delivery.ack()
    await harness.report(make.result())
    await harness.call(CancelRun(again, "enough"))
    await harness.call(CancelRun(again, "at once"))
    assert await harness.states() == ["cancelled", "cancelled"]
    assert await harness.value("SELECT count(*) FROM task_live") == 0
