"""A run from its event to its end: what is handed out, with which values, and what follows."""

from uuid import UUID

import pytest
from msgspec import msgpack

from pubsubflow.errors import InvalidInput
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.model.source.bundles import parse_source_key
from pubsubflow.model.spec import RetryPolicy, TriggerRule
from pubsubflow.model.wire.commands import CancelRun, ClearTasks, StartingTask, StartRun
from pubsubflow.model.wire.messages import (
    EmittedEvent,
    EventInfo,
    LogMessage,
    StartedMessage,
    TaskError,
    decode_run_info,
    encode,
)
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.model.wire.worker_requests import EventsRequest, ResultRequest, decode_chunk
from support.harness import post
from support.specs import BUNDLE, dag, task, uri

pytestmark = pytest.mark.anyio
SYNC = {"kind": "sync"}


async def send_request(harness, worker_request):
    return decode_chunk(
        await harness.bus.request(Subjects.WORKER_REQUEST, encode(worker_request), 5)
    )


async def test_an_event_starts_a_run_whose_end_is_recorded(harness):
    await harness.load(dag("d", task("a", emits=["y"]), on="x"))
    await harness.post("x1")
    order = await harness.order("a")
    assert order.info.dag_id == "d"
    assert order.info.kind == "dataset"
    assert order.events == ["x1"]
    assert (order.message.attempt, order.message.delivery) == (1, 1)
    assert order.message.source == await harness.value("SELECT source FROM dag_state")
    assert parse_source_key(order.message.source).bundle == BUNDLE
    await harness.report(order.result(value={"rows": 3}))
    await harness.until_states("success")
    ((result, worker),) = await harness.rows("SELECT result, worker FROM task")
    assert (result, worker) == (encode({"rows": 3}), "w1")
    assert await harness.value("SELECT count(*) FROM task_live") == 0
    assert await harness.rows(
        "SELECT uri, source, node FROM event JOIN dataset ON dataset.id = dataset ORDER BY event.id"
    ) == [("x://x", "api", None), ("x://y", "task", 0)]


async def test_an_event_reaches_the_next_dag_with_where_it_came_from(harness):
    await harness.load(dag("d", task("a", emits=["y"])), dag("e", task("b"), on="y"))
    run_id = await harness.call(StartRun("d"))
    emits = (EmittedEvent(uri("y"), {"n": 1}, "p1"), EmittedEvent(uri("y"), {"n": 2}))
    await harness.finish("a", emits=emits)
    first, second = [(await harness.order("b")).info for _ in range(2)]
    # A partition of the run is one that its schedule has; that of an event stays the event's.
    assert (first.partition, second.partition) == (None, None)
    (event,) = first.events
    assert isinstance(event, EventInfo)
    assert (event.dataset, event.extra, event.partition) == ("x://y", {"n": 1}, "p1")
    assert (event.run_id, event.dag_id, event.task_id) == (run_id, "d", "a")


@pytest.mark.parametrize("outcome", ["skipped", "failed"])
async def test_only_a_success_emits(harness, outcome):
    await harness.load(dag("d", task("a", emits=["y"])), dag("e", task("b"), on="y"))
    await harness.call(StartRun("d"))
    await harness.finish("a", outcome, emits=(EmittedEvent(uri("y")),))
    await harness.until_states("success" if outcome == "skipped" else "failed")
    assert await harness.value("SELECT count(*) FROM event") == 0


async def test_results_travel_to_those_that_take_them(harness):
    await harness.load(
        dag(
            "d", task("a"), task("b"), task("c", "a", inputs=["b"], **SYNC), task("e", inputs=["c"])
        )
    )
    await harness.call(StartRun("d"))
    await harness.finish("a", value=1)
    await harness.finish("b", value=["x", None])
    assert (await harness.finish("c")).inputs == {1: ["x", None]}
    assert (await harness.order("e")).inputs == {2: None}, "no value is None"


async def test_results_of_one_batch_travel_too(harness):
    await harness.load(dag("d", task("a"), task("b"), task("c", inputs=["a", "b"], **SYNC)))
    await harness.call(StartRun("d"))
    a, b = await harness.order("a"), await harness.order("b")
    harness.answer(a, [a.result(value="A")])
    harness.answer(b, [b.result(value="B")])
    assert (await harness.order("c")).inputs == {0: "A", 1: "B"}


async def test_a_mapped_task_gets_one_order_per_element(harness):
    await harness.load(
        dag(
            "d",
            task("list"),
            task("each", inputs=["list"], over=["list", 2]),
            task("end", inputs=["each"]),
        )
    )
    await harness.call(StartRun("d"))
    await harness.finish("list", value=["x", {"y": 1}])
    orders = [await harness.order("each") for _ in range(4)]
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
        assert not harness.orders
        await harness.report(order.result(value=order.message.map_index * 10))
    assert (await harness.finish("end")).inputs == {1: [0, 10, 20, 30]}
    await harness.until_states("success")


async def test_a_retried_instance_gets_the_same_element(harness):
    await harness.load(dag("d", task("m", over=[3]), task("n", over=["m"], retry=RetryPolicy(1))))
    await harness.call(StartRun("d"))
    for _ in range(3):
        order = await harness.order("m")
        await harness.report(order.result(value=f"v{order.message.map_index}"))
    order = await harness.order("n", map_index=1)
    await harness.report(order.result("failed"))
    again = await harness.order("n", map_index=1)
    assert again.message.attempt == 2
    assert again.elements == order.elements == {"arg0": "v1"}


async def test_mapping_over_a_mapped_task_leaves_out_what_failed(harness):
    done = TriggerRule.ALL_DONE
    await harness.load(
        dag("d", task("m", over=[3]), task("n", over=["m"], inputs=["m"], trigger_rule=done))
    )
    await harness.call(StartRun("d"))
    for _ in range(3):
        order = await harness.order("m")
        index = order.message.map_index
        await harness.report(order.result("failed" if index == 1 else "success", value=index))
    orders = [await harness.order("n") for _ in range(2)]
    assert sorted(order.elements["arg0"] for order in orders) == [0, 2]
    assert orders[0].inputs == {0: [0, 2]}


async def test_mapping_over_nothing_and_over_no_list(harness):
    tasks = (task("list"), task("each", over=["list"]), task("end", "each"))
    await harness.load(dag("d", *tasks), dag("e", *tasks))
    await harness.call(StartRun("d"))
    await harness.finish("list", value=[])
    await harness.until_states("success", dag_id="d")
    assert await harness.tasks() == {"0": "success", "1": "skipped", "2": "skipped"}
    await harness.call(StartRun("e"))
    await harness.finish("list", value=7)
    await harness.until_states("failed", dag_id="e")
    errors = await harness.rows("SELECT error FROM task WHERE error IS NOT NULL")
    assert [error["message"] for (error,) in errors] == [
        "it is mapped over a result that is not a list or dict (arg0)"
    ]


async def test_a_branch_skips_what_it_does_not_follow(harness):
    await harness.load(
        dag(
            "d",
            task("b", role="branch"),
            task("left", "b", emits=["l"]),
            task("right", "b", emits=["r"]),
            task("after", "right"),
        )
    )
    await harness.call(StartRun("d"))
    await harness.finish("b", follow=("left",))
    await harness.finish("left")
    await harness.until_states("success")
    assert await harness.tasks() == {"0": "success", "1": "success", "2": "skipped", "3": "skipped"}
    assert await harness.rows("SELECT uri FROM event JOIN dataset ON dataset.id = dataset") == [
        ("x://l",)
    ]


async def test_a_short_circuit_skips_and_its_outlet_is_silent(harness):
    await harness.load(
        dag("d", task("s", role="short_circuit", emits=["x"]), task("a", "s"), task("b", "a"))
    )
    await harness.call(StartRun("d"))
    await harness.finish("s", follow=())
    await harness.until_states("success")
    assert await harness.tasks() == {"0": "success", "1": "skipped", "2": "skipped"}
    assert await harness.value("SELECT count(*) FROM event") == 0


async def test_empty_tasks_pass_and_their_outlets_cascade(harness):
    await harness.load(
        dag("d0", task("a", kind="empty", emits=["y0"]), on="x"),
        *(
            dag(f"d{n}", task("a", kind="empty", emits=[f"y{n}"]), on=f"y{n - 1}")
            for n in range(1, 30)
        ),
        dag("end", task("a"), on="y29 & x"),
    )
    await harness.post("x1")
    order = await harness.order("a")
    assert order.info.dag_id == "end"
    assert await harness.value("SELECT count(*) FROM run WHERE state = 'success'") == 30
    assert await harness.value("SELECT count(*) FROM event") == 31
    assert not await harness.value("SELECT count(*) FROM dag_state WHERE active <> 0 AND dag < 31")


async def test_a_circle_of_dags_without_work_is_stopped_and_harms_no_other_dag(harness):
    await harness.load(
        dag("d", task("a", kind="empty", emits=["y"]), on="x"),
        dag("e", task("a", kind="empty", emits=["x"]), on="y"),
        dag("f", task("a"), on="z"),
    )
    await harness.call(post("x"))
    assert await harness.states() == ["success"] * 200
    assert await harness.rows("SELECT kind, subject, reason FROM dead_letter") == [
        ("loop", "d", "after 100 rounds of d → e → d the circle was stopped")
    ]
    assert await harness.rows(
        "SELECT dag_id, outcome FROM event_outcome JOIN dag ON dag.id = dag"
    ) == [("d", "dead")]
    assert await harness.rows("SELECT DISTINCT active, queued FROM dag_state") == [(0, 0)]
    await harness.post("z1")
    assert (await harness.order("a")).info.dag_id == "f"


async def test_a_circle_of_dags_that_start_each_other_is_stopped(harness):
    await harness.load(dag("d", task("a")), dag("e", task("a")))
    numbers = dict(await harness.rows("SELECT dag_id, id FROM dag"))
    run_id = await harness.call(StartRun("d"))
    origin = StartingTask(run_id, "d", "a", (numbers["d"],))
    again = await harness.call(StartRun("e", run_key="k", started_by=origin, cause=origin.cause))
    (info,) = [
        decode_run_info(row)
        for (row,) in await harness.rows(
            f"SELECT info FROM run_live JOIN run ON id = run WHERE run_id = '{again}'"
        )
    ]
    assert info.ancestry == (numbers["d"],)
    assert info.cause == f"started by task a of d {run_id}"
    # Also when its tasks are cleared after it has ended, and it is loaded anew.
    await harness.call(CancelRun(UUID(again), "test"))
    await harness.call(ClearTasks(UUID(again)))
    query = "SELECT info FROM run_live JOIN run ON id = run WHERE run_id = $1"
    assert decode_run_info(await harness.value(query, again)).ancestry == (numbers["d"],)
    circle = StartingTask(run_id, "d", "a", (numbers["d"], numbers["e"]) * 100)
    with pytest.raises(InvalidInput, match="after 100 rounds of d → e → d the circle was"):
        await harness.call(StartRun("d", started_by=circle))
    # What exists under a key is no further round.
    key = StartRun("e", run_key="k", started_by=circle)
    assert await harness.call(key) == again
    with pytest.raises(InvalidInput, match="cannot begin with 'started by task '"):
        await harness.call(StartRun("e", cause=origin.cause))
    assert len(await harness.states()) == 2


async def test_a_dag_without_tasks_succeeds(harness):
    await harness.load(dag("d", on="x"))
    await harness.post("x1")
    await harness.until_states("success")
    assert await harness.value("SELECT active FROM dag_state") == 0


async def test_failures_spread_and_the_run_fails(harness):
    await harness.load(dag("d", task("a"), task("b", "a"), task("c")))
    await harness.call(StartRun("d"))
    error = TaskError("ValueError", "no \x00 such", "tb")
    await harness.finish("a", "failed", error=error)
    assert await harness.states() == ["running"], "c is still at work"
    await harness.finish("c")
    await harness.until_states("failed")
    assert await harness.tasks() == {"0": "failed", "1": "upstream_failed", "2": "success"}
    stored = await harness.value("SELECT error FROM task WHERE node = 0")
    assert stored == {
        "type": "ValueError",
        "message": "no \\u0000 such",
        "traceback": "tb",
        "final": False,
        "full_traceback": "",
    }


async def test_a_task_that_runs_for_long_says_so(harness):
    await harness.load(dag("d", task("a")))
    await harness.call(StartRun("d"))
    order = await harness.order("a")
    message = order.message
    started = StartedMessage(message.run, 0, -1, 1, 1, "w1", 5.0)
    await harness.publish(Subjects.inbound(Subjects.STARTED, message.run), started)
    assert await harness.rows("SELECT state, worker FROM task_live") == [("running", "w1")]
    await harness.publish(
        Subjects.inbound(Subjects.STARTED, message.run),
        StartedMessage(message.run, 0, -1, 1, 9, "w2", 5.0),
    )
    assert await harness.rows("SELECT state, worker FROM task_live") == [("running", "w1")]
    await harness.report(order.result())
    await harness.until_states("success")


async def test_output_is_kept_in_order_and_once(harness):
    await harness.load(dag("d", task("a")))
    await harness.call(StartRun("d"))
    run = (await harness.order("a")).message.run
    for sequence in (2, 0, 1, 1, 0):
        message = LogMessage(run, 0, -1, 1, 1, sequence, f"line {sequence}\x00")
        await harness.publish(Subjects.inbound(Subjects.LOG, run), message)
    pieces = await harness.rows("SELECT sequence, text FROM log ORDER BY sequence")
    assert pieces == [(number, f"line {number}\\u0000") for number in range(3)]


async def test_output_is_kept_also_after_the_end(harness):
    await harness.load(dag("d", task("a")))
    await harness.call(StartRun("d"))
    order = await harness.finish("a")
    run = order.message.run
    await harness.publish(
        Subjects.inbound(Subjects.LOG, run), LogMessage(run, 0, -1, 1, 1, 0, "late")
    )
    assert await harness.value("SELECT text FROM log") == "late"


async def test_what_is_too_large_to_travel_along_is_requested(harness):
    await harness.load(
        dag(
            "d",
            task("big"),
            task("take", inputs=["big"], **SYNC),
            task("each", over=["big"]),
        )
    )
    await harness.call(StartRun("d"))
    value = ["x" * 100_000, "y" * 200_000, "z"]
    order = await harness.finish("big", value=value)
    run = order.message.run
    assert (await harness.order("take")).inputs == {}
    elements = {}
    for _ in range(3):
        order = await harness.order("each")
        elements[order.message.map_index] = order.elements
    assert elements == {0: {"arg0": value[0]}, 1: {}, 2: {"arg0": "z"}}
    whole = b""
    while len(whole) < len(encode(value)):
        piece = await send_request(harness, ResultRequest(run, 0, offset=len(whole)))
        assert piece.error is None
        assert piece.total == len(encode(value))
        whole += piece.data
    assert whole == encode(value)
    assert (await send_request(harness, ResultRequest(run, 0, element=1))).data == encode(value[1])


async def test_a_question_without_answer_gets_a_reason_and_the_next_an_answer(harness):
    await harness.load(dag("d", task("a"), task("m", over=[2])))
    await harness.call(StartRun("d"))
    order = await harness.finish("a", value=[1])
    run = order.message.run
    for index in range(2):
        await harness.report((await harness.order("m", map_index=index)).result(value=index))
    for worker_request in (
        ResultRequest(run, 7),
        ResultRequest(run + 1, 0),
        ResultRequest(2**64 - 1, 0),
        ResultRequest(run, 0, element=9),
        ResultRequest(run, 0, element=-1),
        ResultRequest(run, 1, 1, element=0),
    ):
        piece = await send_request(harness, worker_request)
        assert piece.error
        assert not piece.data
    for garbage in (
        b"",
        b"\xff",
        encode(["source"]),
        b"\x93\xa6result\xa1\xff\x00",
        b"\x91" * 9999,
    ):
        assert decode_chunk(await harness.bus.request(Subjects.WORKER_REQUEST, garbage, 5)).error
    assert (await send_request(harness, ResultRequest(run, 1, None))).data == encode([0, 1])
    assert (await send_request(harness, ResultRequest(run, 1, 1))).data == encode(1)


async def read_events(harness, run):
    found = []
    pieces = 0
    while True:
        piece = await send_request(harness, EventsRequest(run, len(found)))
        found += msgpack.decode(piece.data, type=list[EventInfo])
        pieces += 1
        if len(found) == piece.total:
            return found, pieces


async def test_more_events_than_travel_along_are_requested_in_pages(harness):
    await harness.load(dag("d", task("a"), on="x & y"))
    for start in (0, 600):  # some in an earlier transaction, some in that of the firing
        names = [f"x{number}" for number in range(start, start + 600)]
        harness.managers[0].put(*(item_of(post("x", extra={"name": name})) for name in names))
    await harness.post("y0")
    order = await harness.order("a")
    assert order.info.events is None
    events, pieces = await read_events(harness, order.message.run)
    assert [event.extra["name"] for event in events] == [f"x{n}" for n in range(1200)] + ["y0"]
    assert pieces == 3


def item_of(call):
    return InboxItem(call, done=lambda _: None, failed=lambda error: pytest.fail(str(error)))


async def test_large_events_are_requested_in_chunks_that_nats_takes(harness):
    await harness.load(dag("d", task("a"), on="x & y"))
    for number in range(9):
        await harness.post(f"x{number}", extra={"pad": "p" * 200_000})
    await harness.post("y0")
    order = await harness.order("a")
    assert order.info.events is None
    events, pieces = await read_events(harness, order.message.run)
    assert len(events) == 10
    assert pieces == 5


async def test_events_are_seen_in_the_order_of_the_log_whatever_their_place(harness):
    await harness.load(dag("d", task("a"), on="(a & b) | (b & c)"))
    await harness.post("b1")
    items = [item_of(post(name[0], extra={"name": name})) for name in ("b2", "c3")]
    harness.managers[0].put(*items)
    assert (await harness.order("a")).events == ["b1", "b2", "c3"]
    items = [item_of(post(name[0], extra={"name": name})) for name in ("c4", "a5")]
    harness.managers[0].put(*items)
    assert (await harness.order("a")).events == ["b1", "b2", "a5"]


async def test_states_of_runs_are_published(harness):
    heard = []
    async with await harness.bus.subscribe(
        "psf.evt.>", lambda message: heard.append(message.subject)
    ):
        await harness.load(dag("d", task("a", emits=["y"])))
        run_id = await harness.call(StartRun("d"))
        await harness.finish("a")
        await harness.until_states("success")
        await harness.bus.flush()
    assert [subject.split(".")[2] for subject in heard] == ["run", "run", "dataset"]
    assert heard[:2] == [f"psf.evt.run.{run_id}"] * 2
