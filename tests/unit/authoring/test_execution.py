import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil
import pytest

import pubsubflow
from pubsubflow import (
    DAG,
    BashOperator,
    Context,
    Dataset,
    DefinitionError,
    Operator,
    PythonOperator,
    current_context,
    task,
)
from pubsubflow.authoring.bind import RunnableDag, bind, encode_result, task_outcome
from pubsubflow.authoring.runtime.bash import CommandFailed
from pubsubflow.authoring.runtime.results import MAX_RESULT_BYTES, decode
from pubsubflow.model.connections import Connection
from pubsubflow.model.wire.messages import EmittedEvent, EventInfo, PublishedEvent, RunInfo
from pubsubflow.model.wire.outputs import PulledValues

orders, rates = Dataset("s3://lake/orders"), Dataset("s3://lake/rates")
NOW = datetime(2026, 11, 20, tzinfo=UTC)


class RecordingHost:
    """A host whose results and events a test sets."""

    def __init__(self, results=None, events=()):
        self.results = results or {}
        self.events = events
        self.lines = []
        self.asked = []
        self.published = []

    def write_log(self, level, event, fields):
        self.lines.append((level, event, dict(fields)))

    def fetch_result(self, node):
        self.asked.append(node)
        return self.results[node]

    def fetch_pulled(self, request):
        self.asked.append(request)
        return PulledValues()

    def fetch_connection(self, name):
        self.asked.append(name)
        return Connection(name=name)

    def fetch_events(self):
        self.asked.append("events")
        return self.events

    def publish(self, event):
        self.published.append(event)

    async def start_run(self, request):
        self.asked.append(request)
        return "run"

    async def apublish(self, event):
        await asyncio.sleep(0)
        self.publish(event)


def event(dataset, **extra) -> EventInfo:
    return EventInfo("id", dataset.uri, extra, None, NOW, "api")


def run_info(params=None, events=()) -> RunInfo:
    return RunInfo(1, "uuid", "x", "manual", params or {}, None, "p1", "asked", NOW, events)


def call(made, task_id, **given):
    node = list(made.ordered()).index(made.nodes[task_id])
    given.setdefault("host", RecordingHost())
    given.setdefault("info", run_info())
    return bind(RunnableDag(made), node, attempt=given.pop("attempt", 1), **given)


def run(made, task_id, **given):
    bound = call(made, task_id, **given)
    return asyncio.run(bound.run()) if bound.is_async else bound.run()


def test_references_become_values_and_literals_stay_themselves():
    literal = object()
    seen = []

    @task
    def source(): ...

    @task
    def sink(x, *rest, key, **more):
        seen.append((x, rest, key, more))

    with DAG("x") as made:
        s = source()
        sink(literal, [s["rows"][0], 2], (s,), key={"deep": [s]}, other=s)
    run(made, "sink", inputs={0: {"rows": [7]}})
    value = {"rows": [7]}
    assert seen == [(literal, ([7, 2], (value,)), {"deep": [value]}, {"other": value})]


def test_a_part_that_is_not_there_names_the_reference():
    @task
    def step(x=None): ...

    with DAG("x") as made:
        step(step()["rows"])
    with pytest.raises(DefinitionError, match=r"<result of step\['rows'\]>") as caught:
        call(made, "step__1", inputs={0: {}})
    assert (caught.value.dag_id, caught.value.task_id) == ("x", "step__1")


def test_async_tasks_give_a_coroutine():
    @task
    async def double(x):
        return x * 2

    with DAG("x") as made:
        double(4)
    assert call(made, "double").is_async
    assert run(made, "double") == 8


def test_mapped_tasks_get_their_elements():
    @task
    def show(x, y=None, z=None):
        return x, y, z

    with DAG("x") as made:
        source = show.override(task_id="source")(0)
        show.partial(z="z").expand(x=[1, [source]], y=source)
        show.override(task_id="rows").partial(x=9).expand_kwargs([{"y": 1}, {"z": source}])
        show.override(task_id="late").expand_kwargs(source)
    inputs = {0: ["a", "b"]}
    given = {"elements": {"y": "b"}, "inputs": inputs}
    assert run(made, "show", indexes=(0, 1), **given) == (1, "b", "z")
    assert run(made, "show", indexes=(1, 1), **given) == ([["a", "b"]], "b", "z")
    assert run(made, "rows", indexes=(1,), inputs=inputs) == (9, None, ["a", "b"])
    assert run(made, "late", indexes=(0,), elements={"": {"x": 5}}) == (5, None, None)
    with pytest.raises(DefinitionError, match="needs dicts"):
        call(made, "late", indexes=(0,), elements={"": 5})
    with pytest.raises(DefinitionError, match="arguments do not fit"):
        call(made, "late", indexes=(0,), elements={"": {"why": 5}})


@pytest.mark.parametrize(
    "annotation", [Context, Context | None, "Context", "pubsubflow.Context", "Context | None"]
)
def test_the_context_is_found_by_its_annotation(annotation):
    def function(before, c=None, after=3):
        return before, c, after

    function.__annotations__["c"] = annotation
    with DAG("x") as made:
        task(function)(1, 2)
    before, context, after = run(made, "function")
    assert (before, after) == (1, 2)
    assert isinstance(context, Context)


def test_the_context_tells_about_run_task_and_attempt():
    @task(outlets=[orders])
    def show(ctx: Context):
        assert current_context() is ctx
        return ctx

    with DAG("x") as made:
        show()
    ctx = run(made, "show", attempt=3, map_index=5, info=run_info({"day": "monday"}))
    assert (ctx.run.run_id, ctx.run.dag_id, ctx.run.kind) == ("uuid", "x", "manual")
    assert (ctx.run.params, ctx.run.partition, ctx.run.cause) == ({"day": "monday"}, "p1", "asked")
    assert (ctx.run.logical_time, ctx.run.created_at) == (None, NOW)
    assert (ctx.task.task_id, ctx.task.map_index, ctx.attempt) == ("show", 5, 3)
    with pytest.raises(DefinitionError, match="while a task runs"):
        current_context()


def test_async_tasks_side_by_side_have_their_own_context():
    @task
    async def show(name):
        await asyncio.sleep(0)
        return name, current_context().task.map_index

    with DAG("x") as made:
        show("a")

    async def both():
        calls = [call(made, "show", map_index=number) for number in range(20)]
        return await asyncio.gather(*(bound.run() for bound in calls))

    assert asyncio.run(both()) == [("a", number) for number in range(20)]


def test_params_declared_as_a_struct_come_as_one():
    class Params(msgspec.Struct):
        day: str
        limit: int = 3

    @task
    def show(ctx: Context):
        return ctx.run.params

    with DAG("x", params=Params) as made:
        show()
    assert run(made, "show", info=run_info({"day": "monday"})) == Params("monday", 3)


def test_events_are_found_by_dataset_and_uri_and_read_once():
    @task
    def show(ctx: Context):
        assert [e.extra["n"] for e in ctx.events[orders]] == [1, 2]
        assert ctx.events["S3://lake/orders/"] == ctx.events[orders]
        assert ctx.events[rates] == []
        assert list(ctx.events) == [orders, rates]
        assert all(isinstance(each, Dataset) for each in ctx.events)
        assert [len(events) for events in ctx.events.values()] == [2, 0]
        assert [each.dataset for each in ctx.events[orders]] == [orders, orders]
        assert f"{ctx.events[orders][0].dataset}" == orders.uri == ctx.events[orders][0].dataset
        with pytest.raises(KeyError, match="no events of 's3://lake/ordres'"):
            ctx.events["s3://lake/ordres"]

    with DAG("x", schedule=orders & rates) as made:
        show()
    two = (event(orders, n=1), event(orders, n=2))
    run(made, "show", info=run_info(events=two))
    host = RecordingHost(events=two)
    run(made, "show", info=run_info(events=None), host=host)
    assert host.asked == ["events"]


def test_emits_take_declared_outlets_and_json_only():
    @task(outlets=[orders])
    def emit(ctx: Context):
        ctx.emit(orders, extra={"rows": 42, "at": (1, 2)}, partition="2026-11-20")
        ctx.emit("s3://lake/orders")

    with DAG("x") as made:
        emit()
    bound = call(made, "emit")
    assert task_outcome(bound, bound.run()).emits == (
        EmittedEvent(orders.uri, {"rows": 42, "at": [1, 2]}, "2026-11-20"),
        EmittedEvent(orders.uri),
    )
    ctx = bound.context
    with pytest.raises(DefinitionError, match=r"not an outlet .* add it: @task\(outlets") as caught:
        ctx.emit(rates)
    assert (caught.value.file, caught.value.task_id) == (__file__, "emit")
    with pytest.raises(DefinitionError, match="extra must be JSON"):
        ctx.emit(orders, extra={"x": object()})
    with pytest.raises(DefinitionError, match="extra must be a dict"):
        ctx.emit(orders, extra=[1])
    with pytest.raises(DefinitionError, match="partition must be a string"):
        ctx.emit(orders, partition=5)


def test_emits_take_what_matches_a_pattern():
    lake = Dataset.match("s3://lake/*/clean")

    @task(outlets=[orders, lake])
    def emit(ctx: Context):
        ctx.emit("S3://LAKE/de/clean", partition="p")

    with DAG("x") as made:
        emit()
    (spec,) = made.to_spec("x.py", "hash").tasks
    assert (spec.outlets, spec.outlet_patterns) == ((orders.uri,), ("s3://lake/*/clean",))
    bound = call(made, "emit")
    assert task_outcome(bound, bound.run()).emits == (EmittedEvent("s3://lake/de/clean", {}, "p"),)
    with pytest.raises(DefinitionError, match=r"declared: s3://lake/orders, s3://lake/\*/clean"):
        bound.context.emit("s3://lake/de/dirty")
    with pytest.raises(DefinitionError, match="give the dataset without constraints"):
        bound.context.emit(lake)


def test_published_events_are_numbered_for_each_instance():
    @task(outlets=[orders, Dataset.match("s3://lake/*/clean")])
    async def stream(n, ctx: Context):
        await ctx.publish(orders, extra={"n": n}, partition="p", time=NOW)
        ctx.publish_now("s3://lake/de/clean")
        await ctx.publish(orders, key="offset 7")

    with DAG("x") as made:
        stream.expand(n=[1, 2])
    host = RecordingHost()
    bound = call(made, "stream", host=host, indexes=(1,), map_index=1)
    asyncio.run(bound.run())
    first, second, third = host.published
    assert first == PublishedEvent(1, 0, 1, "1.0.1.0", orders.uri, {"n": 2}, "p", NOW, delivery=1)
    assert second == PublishedEvent(1, 0, 1, "1.0.1.1", "s3://lake/de/clean", delivery=1)
    assert third.key == "1.0.1.koffset%207"
    assert task_outcome(bound, None).published == (orders.uri, "s3://lake/de/clean")
    again = RecordingHost()
    asyncio.run(call(made, "stream", host=again, indexes=(1,), map_index=1, attempt=2).run())
    assert again.published == host.published
    cleared = RecordingHost()
    later = call(
        made, "stream", host=cleared, indexes=(1,), map_index=1, attempt=3, delivery=2_000_001
    )
    asyncio.run(later.run())
    assert [event.key for event in cleared.published] == [
        "1.0.1.c2.0",
        "1.0.1.c2.1",
        "1.0.1.c2.koffset%207",
    ]
    ctx = bound.context
    with pytest.raises(DefinitionError, match="not an outlet"):
        ctx.publish_now(rates)
    with pytest.raises(DefinitionError, match="datetime with a zone"):
        ctx.publish_now(orders, time=NOW.replace(tzinfo=None))
    with pytest.raises(DefinitionError, match="key must be a string"):
        ctx.publish_now(orders, key=7)


def test_events_of_a_pattern_are_found_by_it_and_by_their_datasets():
    lake = Dataset.match("s3://lake/*/orders")
    de, pl = Dataset("s3://lake/de/orders"), Dataset("s3://lake/pl/orders")

    @task
    def show(ctx: Context):
        numbers = [found.extra["n"] for found in ctx.events.all]
        assert numbers == [1, 2, 3]
        assert [found.extra["n"] for found in ctx.events[lake]] == [1, 3]
        assert [found.extra["n"] for found in ctx.events[de]] == [1]
        assert ctx.events[Dataset.match("s3://lake/*/nothing")] == []
        assert ctx.events["s3://lake/fr/orders"] == []
        assert ctx.events[rates.where("event.extra.n > 0")] == ctx.events[rates]
        assert list(ctx.events) == [rates.uri, de.uri, pl.uri]
        with pytest.raises(KeyError, match=r"its datasets: .*s3://lake/\*/orders"):
            ctx.events["s3://other/fr/orders"]

    with DAG("x", schedule=lake | rates) as made:
        show()
    run(made, "show", info=run_info(events=(event(de, n=1), event(rates, n=2), event(pl, n=3))))


def test_results_of_earlier_tasks_can_be_asked_for():
    @task
    def step(*values): ...

    with DAG("x") as made:
        first = step.override(task_id="first")()
        second = step.override(task_id="second")(first)
        third = step.override(task_id="third")(second)
        third >> step.override(task_id="after")()
    host = RecordingHost({0: msgspec.msgpack.encode("fetched")})
    ctx = call(made, "third", inputs={1: "given"}, host=host).context
    assert ctx.result("second") == "given"
    assert [ctx.result("first"), ctx.result("first")] == ["fetched", "fetched"]
    assert host.asked == [0]
    with pytest.raises(DefinitionError, match="did you mean 'second'"):
        ctx.result("secnd")
    with pytest.raises(DefinitionError, match="is not upstream of this task"):
        ctx.result("after")


def test_the_log_takes_facts_and_tracebacks():
    @task
    def talk(ctx: Context):
        log = ctx.log.bind(part="one")
        log.info("loaded", rows=42)
        log.warning("only %d of %d", 1, 2)
        ctx.progress(3, 10)
        try:
            int("x")
        except ValueError:
            log.exception("failed")

    with DAG("x") as made:
        talk()
    host = RecordingHost()
    run(made, "talk", host=host)
    assert host.lines[:3] == [
        ("info", "loaded", {"part": "one", "rows": 42}),
        ("warning", "only 1 of 2", {"part": "one"}),
        ("info", "progress", {"done": 3, "total": 10}),
    ]
    level, name, fields = host.lines[3]
    assert (level, name) == ("error", "failed")
    assert "ValueError: invalid literal" in fields["exception"]


def test_operators_get_resolved_rendered_copies_of_their_fields():
    class Query(Operator):
        template_fields = ("sql", "options")

        def __init__(self, *, sql, rows=None, **options):
            super().__init__(**options)
            self.sql, self.rows, self.options = sql, rows, {"names": ["{{ params.day }}", 3]}

        def execute(self, ctx):
            assert ctx is current_context()
            return self.sql, self.rows, self.options

    @task
    def step(): ...

    with DAG("x") as made:
        value = step()
        query = Query(
            task_id="query",
            sql="select {{ ctx.result('step') }} {{ ctx.run.params.day }} {{ task.task_id }}\n",
            rows=[value],
        )
        Query(task_id="raw", sql=value)
    given = {"inputs": {0: "{{ evil }}"}, "info": run_info({"day": "monday"})}
    sql, rows, options = run(made, "query", **given)
    assert sql == "select {{ evil }} monday query\n"
    assert (rows, options) == (["{{ evil }}"], {"names": ["monday", 3]})
    assert query.sql.startswith("select {{ ctx")
    assert run(made, "raw", **given)[0] == "{{ evil }}"


EVIL = "{{ 6 * 7 }}"


class Query(Operator):
    template_fields = ("sql", "env", "made")

    def __init__(self, *, sql, env=None, rows=None, **options):
        super().__init__(**options)
        self.sql, self.env, self.rows, self.made = sql, env, rows, "{{ params.day }}"

    def execute(self, ctx):  # noqa: ARG002
        return self.sql, self.env, self.rows, self.made


def test_what_an_operator_is_mapped_to_is_data_unless_it_stands_in_the_file():
    @task
    def rows(): ...

    with DAG("x") as made:
        texts = rows()
        Query.partial(task_id="fixed", sql="{{ params.day }}").expand(env=texts)
        Query.partial(task_id="kwargs", env={"A": "{{ params.day }}"}).expand_kwargs(texts)
        Query.partial(task_id="file", sql="{{ params.day }}").expand(
            env=["{{ params.day }}", "b"], rows=["{{ raw }}"]
        )
        Query.partial(task_id="mixed", sql=texts).expand(env=["{{ params.day }}", texts])
        Query.partial(task_id="listed", env=None).expand_kwargs([{"sql": "{{ params.day }}"}])
    info = run_info({"day": "monday"})

    def result(task_id, *indexes, elements=None):
        given = {"inputs": {0: EVIL}, "elements": elements}
        return run(made, task_id, info=info, indexes=indexes, **given)

    assert result("fixed", 0, elements={"env": {"A": EVIL}})[:2] == ("monday", {"A": EVIL})
    row = {"sql": EVIL, "rows": [EVIL]}
    assert result("kwargs", 0, elements={"": row})[:3] == (EVIL, {"A": "monday"}, [EVIL])
    assert result("file", 0, 0) == ("monday", "monday", "{{ raw }}", "monday")
    assert result("mixed", 0)[:2] == (EVIL, "monday")
    assert result("mixed", 1)[:2] == (EVIL, EVIL)
    assert result("listed", 0)[0] == "monday"


def test_the_arguments_of_a_mapped_python_operator_are_data():
    @task
    def rows(): ...

    with DAG("x") as made:
        PythonOperator.partial(task_id="show", python_callable=lambda x: x).expand(op_args=rows())
    given = {"inputs": {0: [[EVIL]]}, "elements": {"op_args": [EVIL]}, "indexes": (0,)}
    assert run(made, "show", **given) == EVIL


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ ctx.__init__.__globals__ }}",
        "{{ run.params.update({'a': 1}) }}",
        "{% for x in range(10000000) %}{% endfor %}",
    ],
)
def test_templates_are_sandboxed(template):
    with DAG("x") as made:
        BashOperator(task_id="show", bash_command=template)
    with pytest.raises(DefinitionError, match=r"unsafe|too big"):
        call(made, "show")


def test_a_value_is_one_word_of_a_shell_command():
    with DAG("x") as made:
        BashOperator(task_id="show", bash_command="printf '<%s>' {{ params.name | sh }} end")
    info = run_info({"name": "a b'; touch /tmp/owned; $(id) `id`"})
    assert run(made, "show", info=info) == "<a b'; touch /tmp/owned; $(id) `id`><end>"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ nothing }}", "'nothing' is undefined"),
        ("{{ params.nothing }}", "no attribute 'nothing'"),
        ("{{ 1 + }}", "unexpected"),
        ("{{ 1 + 'a' }}", "unsupported operand"),
        ("{{ ctx.result('x') }}", "is not upstream of this task"),
    ],
)
def test_a_template_error_names_task_and_field(template, reason):
    with DAG("x") as made:
        BashOperator(task_id="show", bash_command=template)
    with pytest.raises(DefinitionError, match=reason) as caught:
        call(made, "show")
    assert "template field 'bash_command'" in caught.value.message
    assert (caught.value.dag_id, caught.value.task_id) == ("x", "show")
    assert caught.value.file == __file__


def test_python_operators_call_their_function():
    def function(x, y, ctx: Context):
        return x, y, ctx.task.task_id

    async def coroutine(x):
        return x

    with DAG("x") as made:
        PythonOperator(
            task_id="a", python_callable=function, op_args=["{{ run.kind }}"], op_kwargs={"y": 2}
        )
        PythonOperator(task_id="b", python_callable=coroutine, op_args=[5])
        PythonOperator.partial(task_id="m", python_callable=coroutine).expand(op_args=[[1], [2]])
    assert run(made, "a") == ("manual", 2, "a")
    assert run(made, "b") == 5
    assert run(made, "m", indexes=(1,)) == 2


def test_mapped_operators_are_made_for_each_element(capfd):
    with DAG("x") as made:
        BashOperator.partial(task_id="m", env={"A": "1"}, retries=2).expand(
            bash_command=["echo $A", "echo {{ run.dag_id }}"]
        )
    assert made.nodes["m"].options.retries == 2
    assert [run(made, "m", indexes=(n,)) for n in (0, 1)] == ["1", "x"]
    assert list(made.nodes) == ["m"]


def test_branches_follow_what_comes_next_only():
    @task.branch
    def choose(): ...

    @task.short_circuit
    def stop(): ...

    @task
    def step(): ...

    with DAG("x") as made:
        choose() >> [step.override(task_id="a")(), step.override(task_id="b")()]
        stop() >> step.override(task_id="c")()
    choice = call(made, "choose")
    assert task_outcome(choice, "a").follow == ("a",)
    assert task_outcome(choice, ["a", "b"]).follow == ("a", "b")
    assert task_outcome(choice, None).follow == ()
    with pytest.raises(DefinitionError, match="choose one of: a, b"):
        task_outcome(choice, "c")
    with pytest.raises(DefinitionError, match="returns task ids"):
        task_outcome(choice, 5)
    assert task_outcome(call(made, "stop"), 0).follow == ()
    assert task_outcome(call(made, "stop"), 1).follow is None
    assert task_outcome(call(made, "a"), 0).follow is None


class Point(msgspec.Struct):
    x: int
    when: datetime


@dataclasses.dataclass
class Row:
    name: str
    points: list[Point]


class Pair(NamedTuple):
    a: int
    b: int


@pytest.fixture(scope="module")
def node():
    @task
    def step(): ...

    with DAG("x"):
        return step().node


@pytest.mark.parametrize(
    ("value", "length", "back"),
    [
        (None, None, None),
        (True, None, True),
        (-(2**63), None, -(2**63)),
        (1.5, None, 1.5),
        ("żółw", None, "żółw"),
        (b"\x00", None, b"\x00"),
        (NOW, None, NOW),
        ([], 0, []),
        ([1, [2]], 2, [1, [2]]),
        ((1, 2, 3), 3, [1, 2, 3]),
        (Pair(1, 2), 2, [1, 2]),
        ({"a": {"b": None}}, 1, {"a": {"b": None}}),
        (Point(1, NOW), None, {"x": 1, "when": NOW}),
        (Row("a", [Point(1, NOW)]), None, {"name": "a", "points": [{"x": 1, "when": NOW}]}),
    ],
)
def test_results_travel(node, value, length, back):
    data, found = encode_result(value, node)
    assert (decode(data), found) == (back, length)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (object(), "object"),
        ({1, 2}, "set"),
        ([date(2026, 1, 1)], "datetime.date"),
        ({"a": [Path()]}, "pathlib.PosixPath"),
        ({1: 2}, "key 1"),
        (NOW.replace(tzinfo=None), "without a time zone"),
        (Row("a", [{"x": 1j}]), "complex"),
        (2**70, "cannot be encoded"),
        (lambda: 1, "function"),
        (iter([1]), "list_iterator"),
    ],
)
def test_results_of_other_types_are_refused_with_place_and_type(node, value, kind):
    with pytest.raises(DefinitionError, match=kind) as caught:
        encode_result(value, node)
    error = caught.value
    assert (error.file, error.dag_id, error.task_id) == (__file__, "x", "step")
    assert error.line == node.location.line


def test_a_result_that_holds_itself_is_refused(node):
    value = []
    value.append(value)
    with pytest.raises(DefinitionError, match="holds itself"):
        encode_result(value, node)


def test_a_result_may_have_a_hundred_levels(node):
    value = 1
    for _ in range(50):
        value = {"a": [value]}
    assert encode_result(value, node)
    with pytest.raises(DefinitionError, match="100 levels deep"):
        encode_result([value], node)


def test_a_result_may_have_one_mebibyte(node):
    fits = b"x" * (MAX_RESULT_BYTES - 5)
    assert len(encode_result(fits, node)[0]) == MAX_RESULT_BYTES == 1_048_576
    with pytest.raises(DefinitionError, match="write it to storage and return where it is"):
        encode_result(fits + b"x", node)


def test_structs_and_dataclasses_come_back_where_they_are_annotated():
    @task
    def step(row: Row, points: list[Point], plain: dict | None = None):
        return row, points, plain

    with DAG("x") as made:
        source = step.override(task_id="source")(1, 2)
        step(source["row"], source["points"], source["row"])
    row = Row("a", [Point(1, NOW)])
    data = msgspec.msgpack.encode({"row": row, "points": row.points})
    assert run(made, "step", inputs={0: decode(data)}) == (
        row,
        row.points,
        {"name": "a", "points": [{"x": 1, "when": NOW}]},
    )
    with pytest.raises(DefinitionError, match="arguments do not fit"):
        call(made, "step", inputs={0: {"row": {"name": 5}, "points": []}})


def test_bash_passes_output_on_and_returns_the_last_line(capfd, tmp_path):
    with DAG("x") as made:
        BashOperator(
            task_id="b",
            bash_command='echo first; echo oops >&2; echo "$WHO in $PWD"',
            env={"WHO": "{{ run.dag_id }}"},
            cwd=tmp_path,
        )
    assert run(made, "b") == f"x in {tmp_path}"
    captured = capfd.readouterr()
    assert captured.out == f"first\nx in {tmp_path}\n"
    assert captured.err == "oops\n"


def test_bash_functions_return_the_command(capfd):
    @task.bash
    def command(n):
        return f"echo $(({n} + 1))"

    @task.bash
    def bad():
        return 5

    with DAG("x") as made:
        command(4)
        bad()
    assert run(made, "command") == "5"
    with pytest.raises(TypeError, match="return the command as a string"):
        run(made, "bad")


def test_a_failing_command_tells_its_code():
    with DAG("x") as made:
        BashOperator(task_id="code", bash_command="exit 7")
        BashOperator(task_id="signal", bash_command="kill -9 $$")
    with pytest.raises(CommandFailed, match="exit code 7") as caught:
        run(made, "code")
    assert caught.value.code == 7
    with pytest.raises(CommandFailed, match="SIGKILL"):
        run(made, "signal")


def wait_gone(pid: int) -> None:
    """Wait until a process that may not be our child is gone."""
    try:
        psutil.wait_procs([psutil.Process(pid)], timeout=10)
    except psutil.NoSuchProcess:
        return
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_an_interrupted_command_ends_with_all_it_started(tmp_path):
    pids = tmp_path / "pids"
    os.mkfifo(pids)

    def stop(*_):
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, stop)
    with DAG("x") as made:
        BashOperator(task_id="b", bash_command=f"sleep 100 & echo $! > {pids}; wait")
    bound = call(made, "b")
    interrupt = f"os.kill({os.getpid()}, {int(signal.SIGALRM)})"
    reader = subprocess.Popen(
        [sys.executable, "-c", f"import os; print(open({str(pids)!r}).read()); {interrupt}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        with pytest.raises(TimeoutError):
            bound.run()
    finally:
        signal.signal(signal.SIGALRM, previous)
    wait_gone(int(reader.communicate()[0]))


@pytest.mark.parametrize("left", ["sleep 100 &", "yes > /dev/null &", "sleep 100 & disown;"])
def test_a_command_ends_with_its_shell_whatever_it_left_in_the_background(left, capsys):
    with DAG("x") as made:
        BashOperator(task_id="b", bash_command=f"{left} echo pid $!; echo oops >&2; printf last")
    assert call(made, "b").run() == "last"
    printed = capsys.readouterr()
    assert printed.err == "oops\n"
    (pid,) = (line for line in printed.out.splitlines() if line.startswith("pid "))
    wait_gone(int(pid.removeprefix("pid ")))


def test_a_command_does_not_wait_for_what_prints_in_a_session_of_its_own(capsys):
    with DAG("x") as made:
        BashOperator(task_id="b", bash_command="setsid yes & echo pid $!")
    call(made, "b").run()
    lines = capsys.readouterr().out.splitlines()
    (pid,) = (line for line in lines if line.startswith("pid "))
    wait_gone(int(pid.removeprefix("pid ")))


def test_lines_of_a_command_come_whole_and_all_of_them(capsys):
    script = (
        r"printf 'a\r\nb\rc\n'; head -c 300000 /dev/zero | tr '\0' x; "
        r"printf '\n\xff\xc3'; printf '\xa9'"
    )
    with DAG("x") as made:
        BashOperator(task_id="b", bash_command=script)
    assert call(made, "b").run() == "\ufffd\xe9"
    assert capsys.readouterr().out == "a\nb\nc\n" + "x" * 300_000 + "\n\ufffd\xe9"


def test_a_killed_runner_takes_the_command_with_it(tmp_path):
    script = tmp_path / "runner.py"
    script.write_text(
        "from pubsubflow.authoring.runtime.bash import run_bash\n"
        "run_bash('sleep 100 & echo $!; wait')\n"
    )
    runner = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(pubsubflow.__file__).parent.parent)},
    )
    with runner:
        sleeper = int(runner.stdout.readline())
        runner.kill()
    wait_gone(sleeper)


def test_importing_pubsubflow_brings_nothing_that_serves_or_runs():
    output = subprocess.check_output(
        [sys.executable, "-c", "import pubsubflow, sys; print(*sys.modules)"],
        env=os.environ | {"PYTHONPATH": str(Path(pubsubflow.__file__).parent.parent)},
        text=True,
    )
    loaded = {name.partition(".")[0] for name in output.split()}
    assert loaded.isdisjoint(
        {
            "aiohttp", "anyio", "asyncio", "asyncpg", "cyclopts", "jinja2", "jsonschema",
            "nats", "rich", "structlog",
        }
    )  # fmt: skip
