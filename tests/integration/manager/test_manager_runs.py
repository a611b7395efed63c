"""A run from its event to its end: what is handed out, with which values, and what follows."""

import pytest
from core_rig import post
from dag_specs import dag, task, uri
from msgspec import msgpack

from pubsubflow.manager.inbox import Item
from pubsubflow.model.spec import RetryPolicy, TriggerRule
from pubsubflow.model.wire.commands import StartRun
from pubsubflow.model.wire.messages import (
    Emit,
    EventInfo,
    LogMessage,
    StartedMessage,
    TaskError,
    encode,
)
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.model.wire.worker_requests import AskEvents, AskResult, decode_piece

pytestmark = pytest.mark.anyio
SYNC = {"kind": "sync"}


async def ask(rig, question):
    return decode_piece(await rig.bus.request(Subjects.ASK, encode(question), 5))


async def test_an_event_starts_a_run_whose_end_is_recorded(rig):
    await rig.load(dag("d", task("a", emits=["y"]), on="x"))
    await rig.post("x1")
    order = await rig.order("a")
    assert order.info.dag_id == "d"
    assert order.info.kind == "dataset"
    assert order.events == ["x1"]
    assert (order.message.attempt, order.message.delivery) == (1, 1)
    assert order.message.source == "hash of d.py"
    await rig.report(order.result(value={"rows": 3}))
    await rig.until_states("success")
    ((result, worker),) = await rig.rows("SELECT result, worker FROM task")
    assert (result, worker) == (encode({"rows": 3}), "w1")
    assert await rig.value("SELECT count(*) FROM task_live") == 0
    assert await rig.rows(
        "SELECT uri, source, node FROM event JOIN dataset ON dataset.id = dataset ORDER BY event.id"
    ) == [("x://x", "api", None), ("x://y", "task", 0)]


async def test_an_event_reaches_the_next_dag_with_where_it_came_from(rig):
    await rig.load(dag("d", task("a", emits=["y"])), dag("e", task("b"), on="y"))
    run_id = await rig.call(StartRun("d"))
    emits = (Emit(uri("y"), {"n": 1}, "p1"), Emit(uri("y"), {"n": 2}))
    await rig.finish("a", emits=emits)
    first, second = [(await rig.order("b")).info for _ in range(2)]
    assert (first.partition, second.partition) == ("p1", None)
    (event,) = first.events
    assert isinstance(event, EventInfo)
    assert (event.dataset, event.extra, event.partition) == ("x://y", {"n": 1}, "p1")
    assert (event.run_id, event.dag_id, event.task_id) == (run_id, "d", "a")


@pytest.mark.parametrize("outcome", ["skipped", "failed"])
async def test_only_a_success_emits(rig, outcome):
    await rig.load(dag("d", task("a", emits=["y"])), dag("e", task("b"), on="y"))
    await rig.call(StartRun("d"))
    await rig.finish("a", outcome, emits=(Emit(uri("y")),))
    await rig.until_states("success" if outcome == "skipped" else "failed")
    assert await rig.value("SELECT count(*) FROM event") == 0


async def test_results_travel_to_those_that_take_them(rig):
    await rig.load(
        dag(
            "d", task("a"), task("b"), task("c", "a", inputs=["b"], **SYNC), task("e", inputs=["c"])
        )
    )
    await rig.call(StartRun("d"))
    await rig.finish("a", value=1)
    await rig.finish("b", value=["x", None])
    assert (await rig.finish("c")).inputs == {1: ["x", None]}
    assert (await rig.order("e")).inputs == {2: None}, "no value is None"


async def test_results_of_one_batch_travel_too(rig):
    await rig.load(dag("d", task("a"), task("b"), task("c", inputs=["a", "b"], **SYNC)))
    await rig.call(StartRun("d"))
    a, b = await rig.order("a"), await rig.order("b")
    rig.answer(a, [a.result(value="A")])
    rig.answer(b, [b.result(value="B")])
    assert (await rig.order("c")).inputs == {0: "A", 1: "B"}


async def test_a_mapped_task_gets_one_order_per_element(rig):
    await rig.load(
        dag(
            "d",
            task("list"),
            task("each", inputs=["list"], over=["list", 2]),
            task("end", inputs=["each"]),
        )
    )
    await rig.call(StartRun("d"))
    await rig.finish("list", value=["x", {"y": 1}])
    orders = [await rig.order("each") for _ in range(4)]
    found = {
        order.message.map_index: (order.elements, order.message.indexes, order.inputs)
        for order in orders
    }
    whole = {0: ["x", {"y": 1}]}
    assert found == {
        0: ({"arg0": "x"}, (0, 0), whole),
        1: ({"arg0": "x"}, (0, 1), whole),
        2: ({"arg0": {"y": 1}}, (1, 0), whole),
        3: ({"arg0": {"y": 1}}, (1, 1), whole),
    }
    for order in reversed(orders):
        assert not rig.orders
        await rig.report(order.result(value=order.message.map_index * 10))
    assert (await rig.finish("end")).inputs == {1: [0, 10, 20, 30]}
    await rig.until_states("success")


async def test_a_retried_instance_gets_the_same_element(rig):
    await rig.load(dag("d", task("m", over=[3]), task("n", over=["m"], retry=RetryPolicy(1))))
    await rig.call(StartRun("d"))
    for _ in range(3):
        order = await rig.order("m")
        await rig.report(order.result(value=f"v{order.message.map_index}"))
    order = await rig.order("n", map_index=1)
    await rig.report(order.result("failed"))
    again = await rig.order("n", map_index=1)
    assert again.message.attempt == 2
    assert again.elements == order.elements == {"arg0": "v1"}


async def test_mapping_over_a_mapped_task_leaves_out_what_failed(rig):
    done = TriggerRule.ALL_DONE
    await rig.load(
        dag("d", task("m", over=[3]), task("n", over=["m"], inputs=["m"], trigger_rule=done))
    )
    await rig.call(StartRun("d"))
    for _ in range(3):
        order = await rig.order("m")
        index = order.message.map_index
        await rig.report(order.result("failed" if index == 1 else "success", value=index))
    orders = [await rig.order("n") for _ in range(2)]
    assert sorted(order.elements["arg0"] for order in orders) == [0, 2]
    assert orders[0].inputs == {0: [0, 2]}


async def test_mapping_over_nothing_and_over_no_list(rig):
    tasks = (task("list"), task("each", over=["list"]), task("end", "each"))
    await rig.load(dag("d", *tasks), dag("e", *tasks))
    await rig.call(StartRun("d"))
    await rig.finish("list", value=[])
    await rig.until_states("success", dag_id="d")
    assert await rig.tasks() == {"0": "success", "1": "skipped", "2": "skipped"}
    await rig.call(StartRun("e"))
    await rig.finish("list", value=7)
    await rig.until_states("failed", dag_id="e")
    errors = await rig.rows("SELECT error FROM task WHERE error IS NOT NULL")
    assert [error["message"] for (error,) in errors] == [
        "it is mapped over a result that is no list (arg0)"
    ]


async def test_a_branch_skips_what_it_does_not_follow(rig):
    await rig.load(
        dag(
            "d",
            task("b", role="branch"),
            task("left", "b", emits=["l"]),
            task("right", "b", emits=["r"]),
            task("after", "right"),
        )
    )
    await rig.call(StartRun("d"))
    await rig.finish("b", follow=("left",))
    await rig.finish("left")
    await rig.until_states("success")
    assert await rig.tasks() == {"0": "success", "1": "success", "2": "skipped", "3": "skipped"}
    assert await rig.rows("SELECT uri FROM event JOIN dataset ON dataset.id = dataset") == [
        ("x://l",)
    ]


async def test_a_short_circuit_skips_and_its_outlet_is_silent(rig):
    await rig.load(
        dag("d", task("s", role="short_circuit", emits=["x"]), task("a", "s"), task("b", "a"))
    )
    await rig.call(StartRun("d"))
    await rig.finish("s", follow=())
    await rig.until_states("success")
    assert await rig.tasks() == {"0": "success", "1": "skipped", "2": "skipped"}
    assert await rig.value("SELECT count(*) FROM event") == 0


async def test_empty_tasks_pass_and_their_outlets_cascade(rig):
    await rig.load(
        dag("d0", task("a", kind="empty", emits=["y0"]), on="x"),
        *(
            dag(f"d{n}", task("a", kind="empty", emits=[f"y{n}"]), on=f"y{n - 1}")
            for n in range(1, 30)
        ),
        dag("end", task("a"), on="y29 & x"),
    )
    await rig.post("x1")
    order = await rig.order("a")
    assert order.info.dag_id == "end"
    assert await rig.value("SELECT count(*) FROM run WHERE state = 'success'") == 30
    assert await rig.value("SELECT count(*) FROM event") == 31
    assert not await rig.value("SELECT count(*) FROM gate WHERE active <> 0 AND dag < 31")


async def test_a_circle_of_dags_without_work_is_stopped_and_harms_nobody(rig):
    await rig.load(
        dag("d", task("a", kind="empty", emits=["y"]), on="x"),
        dag("e", task("a", kind="empty", emits=["x"]), on="y"),
        dag("f", task("a"), on="z"),
    )
    await rig.call(post("x"))
    assert await rig.states() == ["success"] * 200
    assert await rig.rows("SELECT kind, subject, reason FROM dead_letter") == [
        ("loop", "d", "after 100 rounds of d → e → d the circle was stopped")
    ]
    assert await rig.rows("SELECT dag_id, fate FROM event_fate JOIN dag ON dag.id = dag") == [
        ("d", "dead")
    ]
    assert await rig.rows("SELECT DISTINCT active, queued FROM gate") == [(0, 0)]
    await rig.post("z1")
    assert (await rig.order("a")).info.dag_id == "f"


async def test_a_dag_without_tasks_succeeds(rig):
    await rig.load(dag("d", on="x"))
    await rig.post("x1")
    await rig.until_states("success")
    assert await rig.value("SELECT active FROM gate") == 0


async def test_failures_spread_and_the_run_fails(rig):
    await rig.load(dag("d", task("a"), task("b", "a"), task("c")))
    await rig.call(StartRun("d"))
    error = TaskError("ValueError", "no \x00 such", "tb")
    await rig.finish("a", "failed", error=error)
    assert await rig.states() == ["running"], "c is still at work"
    await rig.finish("c")
    await rig.until_states("failed")
    assert await rig.tasks() == {"0": "failed", "1": "upstream_failed", "2": "success"}
    stored = await rig.value("SELECT error FROM task WHERE node = 0")
    assert stored == {
        "type": "ValueError", "message": "no \\u0000 such", "traceback": "tb", "final": False
    }  # fmt: skip


async def test_a_task_that_runs_for_long_says_so(rig):
    await rig.load(dag("d", task("a")))
    await rig.call(StartRun("d"))
    order = await rig.order("a")
    message = order.message
    started = StartedMessage(message.run, 0, -1, 1, 1, "w1", 5.0)
    await rig.tell(Subjects.inbound(Subjects.STARTED, message.run), started)
    assert await rig.rows("SELECT state, worker FROM task_live") == [("running", "w1")]
    await rig.tell(
        Subjects.inbound(Subjects.STARTED, message.run),
        StartedMessage(message.run, 0, -1, 1, 9, "w2", 5.0),
    )
    assert await rig.rows("SELECT state, worker FROM task_live") == [("running", "w1")]
    await rig.report(order.result())
    await rig.until_states("success")


async def test_output_is_kept_in_order_and_once(rig):
    await rig.load(dag("d", task("a")))
    await rig.call(StartRun("d"))
    run = (await rig.order("a")).message.run
    for sequence in (2, 0, 1, 1, 0):
        message = LogMessage(run, 0, -1, 1, 1, sequence, f"line {sequence}\x00")
        await rig.tell(Subjects.inbound(Subjects.LOG, run), message)
    pieces = await rig.rows("SELECT sequence, text FROM log ORDER BY sequence")
    assert pieces == [(number, f"line {number}\\u0000") for number in range(3)]


async def test_output_is_kept_also_after_the_end(rig):
    await rig.load(dag("d", task("a")))
    await rig.call(StartRun("d"))
    order = await rig.finish("a")
    run = order.message.run
    await rig.tell(Subjects.inbound(Subjects.LOG, run), LogMessage(run, 0, -1, 1, 1, 0, "late"))
    assert await rig.value("SELECT text FROM log") == "late"


async def test_what_is_too_large_to_travel_along_is_asked_for(rig):
    await rig.load(
        dag(
            "d",
            task("big"),
            task("take", inputs=["big"], **SYNC),
            task("each", over=["big"]),
        )
    )
    await rig.call(StartRun("d"))
    value = ["x" * 100_000, "y" * 200_000, "z"]
    order = await rig.finish("big", value=value)
    run = order.message.run
    assert (await rig.order("take")).inputs == {}
    elements = {}
    for _ in range(3):
        order = await rig.order("each")
        elements[order.message.map_index] = order.elements
    assert elements == {0: {"arg0": value[0]}, 1: {}, 2: {"arg0": "z"}}
    whole = b""
    while len(whole) < len(encode(value)):
        piece = await ask(rig, AskResult(run, 0, offset=len(whole)))
        assert piece.error is None
        assert piece.total == len(encode(value))
        whole += piece.data
    assert whole == encode(value)
    assert (await ask(rig, AskResult(run, 0, element=1))).data == encode(value[1])


async def test_a_question_without_answer_gets_a_reason_and_the_next_an_answer(rig):
    await rig.load(dag("d", task("a"), task("m", over=[2])))
    await rig.call(StartRun("d"))
    order = await rig.finish("a", value=[1])
    run = order.message.run
    for index in range(2):
        await rig.report((await rig.order("m", map_index=index)).result(value=index))
    for question in (
        AskResult(run, 7),
        AskResult(run + 1, 0),
        AskResult(2**64 - 1, 0),
        AskResult(run, 0, element=9),
        AskResult(run, 0, element=-1),
        AskResult(run, 1, 1, element=0),
    ):
        piece = await ask(rig, question)
        assert piece.error
        assert not piece.data
    for garbage in (
        b"",
        b"\xff",
        encode(["source"]),
        b"\x93\xa6result\xa1\xff\x00",
        b"\x91" * 9999,
    ):
        assert decode_piece(await rig.bus.request(Subjects.ASK, garbage, 5)).error
    assert (await ask(rig, AskResult(run, 1, None))).data == encode([0, 1])
    assert (await ask(rig, AskResult(run, 1, 1))).data == encode(1)


async def read_events(rig, run):
    found = []
    pieces = 0
    while True:
        piece = await ask(rig, AskEvents(run, len(found)))
        found += msgpack.decode(piece.data, type=list[EventInfo])
        pieces += 1
        if len(found) == piece.total:
            return found, pieces


async def test_more_events_than_travel_along_are_asked_for_in_pages(rig):
    await rig.load(dag("d", task("a"), on="x & y"))
    for start in (0, 600):  # some in an earlier transaction, some in that of the firing
        names = [f"x{number}" for number in range(start, start + 600)]
        for name in names:
            rig.managers[0]._put(item_of(post("x", extra={"name": name})))
    await rig.post("y0")
    order = await rig.order("a")
    assert order.info.events is None
    events, pieces = await read_events(rig, order.message.run)
    assert [event.extra["name"] for event in events] == [f"x{n}" for n in range(1200)] + ["y0"]
    assert pieces == 3


def item_of(call):
    return Item(call, done=lambda _: None, failed=lambda error: pytest.fail(str(error)))


async def test_large_events_are_asked_for_in_pieces_that_nats_takes(rig):
    await rig.load(dag("d", task("a"), on="x & y"))
    for number in range(9):
        await rig.post(f"x{number}", extra={"pad": "p" * 200_000})
    await rig.post("y0")
    order = await rig.order("a")
    assert order.info.events is None
    events, pieces = await read_events(rig, order.message.run)
    assert len(events) == 10
    assert pieces == 5


async def test_events_are_seen_in_the_order_of_the_log_whatever_their_place(rig):
    await rig.load(dag("d", task("a"), on="(a & b) | (b & c)"))
    await rig.post("b1")
    for name in ("b2", "c3"):
        rig.managers[0]._put(item_of(post(name[0], extra={"name": name})))
    assert (await rig.order("a")).events == ["b1", "b2", "c3"]
    for name in ("c4", "a5"):
        rig.managers[0]._put(item_of(post(name[0], extra={"name": name})))
    assert (await rig.order("a")).events == ["b1", "b2", "a5"]


async def test_outcomes_are_told_to_whoever_listens(rig):
    heard = []
    async with await rig.bus.subscribe("psf.evt.>", lambda message: heard.append(message.subject)):
        await rig.load(dag("d", task("a", emits=["y"])))
        run_id = await rig.call(StartRun("d"))
        await rig.finish("a")
        await rig.until_states("success")
        await rig.bus.flush()
    assert [subject.split(".")[2] for subject in heard] == ["run", "run", "dataset"]
    assert heard[:2] == [f"psf.evt.run.{run_id}"] * 2
