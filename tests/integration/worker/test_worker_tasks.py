"""What tasks get, give and print."""

import anyio
import pytest

from pubsubflow.model.wire.messages import NO_NODE, EmittedEvent, Outcome, PublishedEvent
from support.bundles import MadeBundle

pytestmark = pytest.mark.anyio

PLAIN = """
from pubsubflow import Context, Dataset, dag, task

orders = Dataset("s3://lake/orders")

@dag
def plain():
    @task
    def add(a: int, b: int) -> int:
        return a + b

    @task
    async def add_async(a: int, b: int) -> int:
        return a + b

    @task
    def one():
        return 1

    @task(outlets=[orders])
    async def emit(ctx: Context):
        ctx.emit(orders, extra={"rows": 2}, partition="p")

    add(one(), 2)
    add_async(one(), 2)
    emit()
"""


@pytest.mark.parametrize("name", ["add", "add_async"])
async def test_a_task_gets_its_inputs_and_gives_its_value(manager, worker, name):
    dag = manager.load(PLAIN)
    upstream = dag.spec.tasks[dag.spec.tasks[dag.node(name)].inputs[0]].task_id
    result = await manager.run(dag, name, inputs={upstream: 40})
    assert result.outcome == Outcome.SUCCESS
    assert (result.value, result.length) == (bytes([42]), None)
    assert (result.worker, result.after, result.then) == ("w1", NO_NODE, NO_NODE)
    assert 0 <= result.ended_at - result.started_at < 5
    assert not manager.logs
    await manager.bus.flush()
    assert await manager.outstanding() == 0


async def test_emitted_events_travel_with_the_result(manager, worker):
    result = await manager.run(manager.load(PLAIN), "emit")
    assert result.emits == (EmittedEvent("s3://lake/orders", {"rows": 2}, "p"),)
    assert result.value == b""


STREAM = """
import threading
from pathlib import Path

import anyio
from pubsubflow import Context, Dataset, dag, task

orders = Dataset("s3://lake/orders")
lake = Dataset.match("s3://lake/*/clean")

@dag
def stream():
    @task(outlets=[orders, lake])
    async def from_loop(ctx: Context):
        for n in range(3):
            await ctx.publish(orders, extra={"n": n}, partition=str(n))
        ctx.publish_now("s3://lake/de/clean")
        Path("published").touch()
        while not Path("go").exists():
            await anyio.sleep(0.01)

    @task(outlets=[orders, lake])
    def from_process(ctx: Context):
        for n in range(3):
            ctx.publish_now(orders, extra={"n": n}, partition=str(n))
        beside = threading.Thread(target=ctx.publish_now, args=["s3://lake/de/clean"])
        beside.start()
        beside.join()
        Path("published").touch()
        while not Path("go").exists():
            pass

    @task(outlets=[orders])
    async def beside(ctx: Context):
        async with anyio.create_task_group() as group:
            for n in range(50):
                group.start_soon(lambda: ctx.publish(orders))

    @task(outlets=[orders])
    def too_large(ctx: Context):
        ctx.publish_now(orders, extra={"text": "x" * 2_000_000})

    from_loop()
    from_process()
    beside()
    too_large()
"""


@pytest.mark.parametrize("name", ["from_loop", "from_process"])
async def test_published_events_are_stored_while_the_task_runs(manager, worker, tmp_path, name):
    dag = manager.load(STREAM.replace('Path("', f'Path("{tmp_path}/'))
    order = await manager.send(manager.order(dag, name))
    await manager.until(lambda: len(manager.published) == 4)
    node = dag.node(name)
    assert manager.published == [
        PublishedEvent(
            *(order.run, node, -1, f"{order.run}.{node}.-1.{n}"),
            *("s3://lake/orders", {"n": n}, str(n)),
            delivery=order.delivery,
        )
        for n in range(3)
    ] + [
        PublishedEvent(
            *(order.run, node, -1, f"{order.run}.{node}.-1.3", "s3://lake/de/clean"),
            delivery=order.delivery,
        ),
    ]
    assert not manager.results
    (tmp_path / "go").touch()
    result = await manager.result(order)
    assert result.outcome == Outcome.SUCCESS
    assert result.emits == ()
    assert result.published == ("s3://lake/orders", "s3://lake/de/clean")


async def test_a_further_attempt_does_not_double_what_was_published(manager, worker, tmp_path):
    dag = manager.load(STREAM.replace('Path("', f'Path("{tmp_path}/'))
    (tmp_path / "go").touch()
    for attempt in (1, 2):
        manager.results.clear()
        await manager.run(dag, "from_process", run=7, attempt=attempt)
    assert [event.key.rpartition(".")[2] for event in manager.published] == list("0123")


async def test_many_events_of_one_task_are_published_side_by_side(manager, worker):
    result = await manager.run(manager.load(STREAM), "beside")
    assert result.outcome == Outcome.SUCCESS
    assert len({event.key for event in manager.published}) == 50


async def test_an_event_that_the_bus_refuses_fails_its_task(manager, worker):
    result = await manager.run(manager.load(STREAM), "too_large")
    assert result.outcome == Outcome.FAILED
    assert result.error.type == "Unavailable"
    assert "the event was not published" in result.error.message
    assert not result.error.final


CHAIN = """
from pubsubflow import Context, TaskSkipped, dag, task

@dag
def chained():
    @task
    {prefix}def first():
        print("one")
        return (1, 2)

    @task
    {prefix}def second(value, ctx: Context):
        print("two")
        assert type(value) is list
        assert ctx.attempt == 1
        return len(value)

    @task
    {prefix}def third(value):
        {third}
        return value + 1

    @task
    {prefix}def fourth(value):
        return None

    fourth(third(second(first())))
"""


@pytest.mark.parametrize("prefix", ["", "async "])
async def test_a_chain_runs_without_asking(manager, worker, prefix):
    dag = manager.load(CHAIN.format(prefix=prefix, third="pass"))
    order = await manager.send(manager.order(dag, "first", chained=True, attempt=2, delivery=3))
    await manager.result(order, 3)
    results = [manager.results[order.run, node] for node in range(4)]
    assert [result.outcome for result in results] == [Outcome.SUCCESS] * 4
    assert [(result.after, result.then) for result in results] == [
        (NO_NODE, 1),
        (0, 2),
        (1, 3),
        (2, NO_NODE),
    ]
    fences = [(result.attempt, result.delivery) for result in results]
    assert fences == [(2, 3), (1, 3), (1, 3), (1, 3)]
    assert [result.value for result in results] == [b"\x92\x01\x02", b"\x02", b"\x03", b""]
    assert (results[0].length, manager.texts(order), manager.texts(order, 1)) == (
        2,
        ["one"],
        ["two"],
    )


@pytest.mark.parametrize("prefix", ["", "async "])
@pytest.mark.parametrize(
    ("line", "outcome"),
    [("raise ValueError('no')", Outcome.FAILED), ("raise TaskSkipped('no')", Outcome.SKIPPED)],
)
async def test_a_chain_ends_with_what_is_no_success(manager, worker, prefix, line, outcome):
    dag = manager.load(CHAIN.format(prefix=prefix, third=line))
    order = await manager.send(manager.order(dag, "first", chained=True))
    result = await manager.result(order, 2)
    assert (result.outcome, result.after, result.then) == (outcome, 1, NO_NODE)
    assert result.error.message == "no"
    again = await manager.run(dag, "first", run=order.run, delivery=2)
    assert again.outcome == Outcome.SUCCESS
    assert (order.run, 3) not in manager.results


MAPPED = """
from pubsubflow import dag, task
from support.bundles import MadeBundle

@dag
def mapped():
    @task
    def sizes():
        return [10, 20]

    @task
    def scale(size, factor):
        return size * factor

    @task
    async def total(values):
        return sum(values)

    total(scale.expand(size=sizes(), factor=[1, 2, 3]))
"""


async def test_an_instance_of_a_mapped_task_gets_its_elements(manager, worker):
    dag = manager.load(MAPPED)
    result = await manager.run(
        dag, "scale", elements={"size": 20}, indexes=(1, 2), map_index=5, attempt=4, delivery=2
    )
    assert result.value == bytes([60])
    assert (result.map_index, result.attempt, result.delivery) == (5, 4, 2)


async def test_what_is_too_large_for_the_message_is_fetched(manager, worker):
    dag = manager.load(MAPPED)
    manager.large[dag.node("sizes"), 1] = 20
    result = await manager.run(dag, "scale", indexes=(1, 2), map_index=5)
    assert result.value == bytes([60])
    manager.large[dag.node("scale"), None] = list(range(1000))
    result = await manager.run(dag, "total")
    assert int.from_bytes(result.value[1:], "big") == sum(range(1000))
    request = manager.requests[-1]
    assert (request.map_index, request.element) == (None, None)


FETCHING = """
import threading
import anyio
from pubsubflow import Context, Dataset, dag, task

orders = Dataset("s3://lake/orders")

@dag(schedule=orders)
def fetching():
    @task
    def source():
        return 1

    @task
    def here(ctx: Context):
        return [ctx.result("source"), len(ctx.events[orders])]

    @task
    async def there(ctx: Context):
        return [ctx.result("source"), len(ctx.events[orders])]

    @task
    async def afar(ctx: Context):
        return await anyio.to_thread.run_sync(
            lambda: [ctx.result("source"), len(ctx.events[orders])]
        )

    source() >> [here(), there(), afar()]
"""


@pytest.mark.parametrize("name", ["here", "there", "afar"])
async def test_a_context_fetches_results_and_events(manager, worker, event, name):
    dag = manager.load(FETCHING)
    manager.large[dag.node("source"), None] = 7
    manager.events = tuple(event("s3://lake/orders", n=n) for n in range(5))
    result = await manager.run(dag, name, events=None)
    assert result.error is None
    assert result.value == b"\x92\x07\x05"


async def test_a_question_without_answer_fails_the_attempt_for_a_retry(manager, worker):
    result = await manager.run(manager.load(FETCHING), "here", events=())
    assert (result.outcome, result.error.type, result.error.final) == (
        Outcome.FAILED,
        "Unavailable",
        False,
    )


PRINTING = """
import logging, os, subprocess, sys, time
import anyio
from pubsubflow import Context, dag, task

@dag
def printing():
    @task
    def loud(ctx: Context):
        print("plain")
        print("to stderr", file=sys.stderr)
        sys.stdout.buffer.write(b"bytes\\n")
        sys.stdout.flush()
        subprocess.run(["sh", "-c", "echo child; echo child err >&2"], check=True)
        os.write(1, b"fd\\n")
        ctx.log.info("rows.loaded", rows=3, odd={1, 2}, m="mine")
        print("no end", end="")

    @task
    async def beside(ctx: Context, name: str):
        for turn in range(20):
            print(name, turn)
            await anyio.sleep(0.001)
        await anyio.to_thread.run_sync(print, f"{name} thread")
        ctx.log.warning("done", name=name)

    @task
    def slow(path: str):
        print("soon")
        while not os.path.exists(path):
            time.sleep(0.01)

    @task
    async def slow_async(path: str):
        print("soon")
        while not os.path.exists(path):
            await anyio.sleep(0.01)

    @task
    def flood():
        for _ in range(200):
            print("x" * 1000)

    @task
    def given():
        return "a"

    loud()
    value = given()
    beside(value)
    slow(value)
    slow_async(value)
    flood()
"""


async def test_all_output_of_a_sync_task_is_its_log(manager, worker):
    dag = manager.load(PRINTING)
    order = await manager.send(manager.order(dag, "loud"))
    assert (await manager.result(order)).error is None
    lines = manager.lines(order)
    by_stream = {name: [x["m"] for x in lines if x["s"] == name] for name in ("stdout", "stderr")}
    assert by_stream == {
        "stdout": ["plain", "bytes", "child", "fd", "no end"],
        "stderr": ["to stderr", "child err"],
    }
    (record,) = [line for line in lines if line["s"] == "log"]
    assert (record["m"], record["level"], record["rows"], record["m_"]) == (
        "rows.loaded",
        "info",
        3,
        "mine",
    )
    assert manager.order_of_arrival == ["log", "result"]


async def test_output_of_async_tasks_side_by_side_is_separated(manager, worker):
    dag = manager.load(PRINTING)
    orders = [
        await manager.send(manager.order(dag, "beside", inputs={"given": name}))
        for name in "abcdefgh"
    ]
    for name, order in zip("abcdefgh", orders, strict=True):
        await manager.result(order)
        expected = [f"{name} {turn}" for turn in range(20)] + [f"{name} thread", "done"]
        assert manager.texts(order) == expected


@pytest.mark.parametrize("name", ["slow", "slow_async"])
async def test_output_and_start_are_published_while_a_task_runs(manager, worker, tmp_path, name):
    dag = manager.load(PRINTING)
    path = tmp_path / "done"
    order = await manager.send(manager.order(dag, name, inputs={"given": str(path)}))
    await manager.until(lambda: manager.texts(order) == ["soon"])
    await manager.until(lambda: bool(manager.started))
    assert (manager.started[0].run, manager.started[0].worker) == (order.run, "w1")
    assert not manager.results
    path.touch()
    assert (await manager.result(order)).outcome == Outcome.SUCCESS


async def test_output_has_a_bound(manager, start_worker):
    async with start_worker(max_log_bytes=50_000):
        order = await manager.send(manager.order(manager.load(PRINTING), "flood"))
        await manager.result(order)
    texts = manager.texts(order)
    assert len(texts) < 60
    assert texts[-1] == "output is truncated here: more than 50000 bytes"


FAILING = """
from pubsubflow import TaskFailed, dag, task

@dag
def failing():
    @task
    def error():
        explain()

    def explain():
        raise ValueError("first\\nsecond")

    @task
    async def final():
        raise TaskFailed("hopeless")

    @task
    async def bad_value():
        return object()

    @task
    def too_large():
        return b"x" * (1 << 20)

    @task
    def leaves():
        raise SystemExit(3)

    @task
    async def leaves_async():
        raise SystemExit(3)

    @task
    async def cancels_itself():
        import asyncio
        raise asyncio.CancelledError

    error(), final(), bad_value(), too_large(), leaves(), leaves_async(), cancels_itself()
"""


@pytest.mark.parametrize(
    ("name", "kind", "message", "final"),
    [
        ("error", "ValueError", "first", False),
        ("final", "TaskFailed", "hopeless", True),
        ("bad_value", "DefinitionError", "the result is a object", True),
        ("too_large", "DefinitionError", "the result has", True),
        ("leaves", "SystemExit", "3", False),
        ("leaves_async", "SystemExit", "3", False),
        ("cancels_itself", "CancelledError", "CancelledError", False),
    ],
)
async def test_failures_say_why(manager, worker, name, kind, message, final):
    result = await manager.run(manager.load(FAILING), name)
    assert (result.outcome, result.error.type, result.error.final) == (
        Outcome.FAILED,
        kind,
        final,
    )
    assert message in result.error.message


async def test_a_traceback_shows_the_users_part_alone(manager, worker):
    result = await manager.run(manager.load(FAILING), "error")
    trace = result.error.traceback
    assert trace.startswith("Traceback (most recent call last):\n")
    assert trace.count("File ") == 2
    assert 'raise ValueError("first\\nsecond")' in trace


async def test_a_file_that_cannot_be_imported_fails_its_tasks(manager, worker):
    spec = manager.load(PLAIN).spec
    broken = MadeBundle({"dags.py": PLAIN + "\nimport nowhere_to_be_found"})
    dag = manager.add(broken, spec)
    for name in ("one", "emit"):
        result = await manager.run(dag, name)
        assert result.error.type == "ModuleNotFoundError"


async def test_code_that_no_manager_has_fails_its_tasks(manager, worker):
    dag = manager.load(PLAIN)
    manager.sources.clear()
    result = await manager.run(dag, "one")
    assert (result.outcome, result.error.message) == (Outcome.FAILED, "no such source")


VERSION = """
import helper
from pubsubflow import dag, task

@dag
def versioned():
    @task
    def here():
        return helper.NUMBER

    @task
    async def there():
        return helper.NUMBER

    here(), there()
"""


async def test_versions_with_other_modules_never_share_a_process(manager, worker):
    versions = [
        manager.load(VERSION, helpers={"helper.py": f"NUMBER = {number}"}) for number in range(4)
    ]
    for name in ("here", "there"):
        results = [(await manager.run(dag, name)).value for dag in versions * 2]
        assert results == [bytes([number]) for number in range(4)] * 2


async def test_poison_is_dropped(manager, worker):
    dag = manager.load(PLAIN)
    await manager.bus.publish_durable("psf.task.default.sync.1.1.1.1.1", b"\xff nonsense")
    assert (await manager.run(dag, "one")).value == b"\x01"
    with anyio.fail_after(20):
        while await manager.outstanding():
            pass
