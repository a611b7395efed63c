"""Traces with OpenTelemetry's own SDK and a collector that decodes its protocol."""

import subprocess
import sys

import anyio
import pytest

from pubsubflow.errors import ConfigError
from pubsubflow.manager import Manager
from pubsubflow.model.wire.messages import PublishedEvent, encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.catalog import Catalog
from support.specs import dag, loaded, task
from support.traces import OTHER_PARENT, REMOTE_PARENT

pytestmark = pytest.mark.anyio

TRACE, PARENT = "a" * 32, "b" * 16
CHAIN = """
from pubsubflow import BashOperator, Context, Dataset, dag, task

a, b, c = Dataset("x://a"), Dataset("x://b"), Dataset("x://c")


@dag(schedule=a)
def first():
    @task(outlets=[b])
    async def wait(ctx: Context):
        await ctx.wait_for_event(c)

    wait()


@dag(schedule=b)
def second():
    BashOperator(task_id="shell", bash_command="echo $TRACEPARENT,$TRACESTATE > {note}")
"""
JOIN = """
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pubsubflow import Context, Dataset, dag, task

x, y, failing, published = (Dataset(f"x://{name}") for name in ("x", "y", "failing", "published"))


@dag(schedule=x & y)
def join():
    @task
    async def see(ctx: Context):
        parent = TraceContextTextMapPropagator().extract(ctx.trace)
        span = get_current_span(parent).get_span_context()
        assert f"{span.trace_id:032x}-{span.span_id:016x}" in ctx.trace["traceparent"]
        return ctx.trace

    @task
    def go_on(trace: dict, ctx: Context):
        assert ctx.trace and ctx.trace != trace

    go_on(see())


@dag(schedule=failing)
def fails():
    @task(outlets=[published])
    async def tell_and_fail(ctx: Context):
        await ctx.publish(published)
        raise ValueError("no luck")

    tell_and_fail()


@dag(schedule=published)
def hears():
    @task
    async def hear():
        pass

    hear()
"""


async def test_one_trace_spans_two_dags_and_a_restart(daemon, collector, tmp_path):
    note = tmp_path / "note"
    text = CHAIN.replace("{note}", str(note))
    async with daemon(text, endpoint=collector.url) as client:
        await client.emit("x://a", traceparent=REMOTE_PARENT, tracestate="them=1")
        await collector.until("task first.wait")
    assert not collector.named("run first")
    async with daemon(text, endpoint=collector.url) as client:
        await client.emit("x://c")
        (run_second,) = await collector.until("run second")

    posted = next(s for s in collector.named("POST /api/v1/datasets/events") if s.trace == TRACE)
    (run_first,) = collector.named("run first")
    deferred, resumed = collector.named("task first.wait")
    (shell,) = collector.named("task second.shell")
    chain = (posted, run_first, deferred, resumed, run_second, shell)
    assert {span.trace for span in chain} == {TRACE}
    assert {span.state for span in chain} == {"them=1"}
    assert posted.parent == PARENT
    assert posted.attributes["http.response.status_code"] == 202
    assert run_first.parent == posted.span
    assert (deferred.parent, resumed.parent) == (run_first.span, run_first.span)
    outcomes = [span.attributes["pubsubflow.outcome"] for span in (deferred, resumed)]
    assert outcomes == ["deferred", "success"]
    assert run_second.parent == resumed.span
    assert shell.parent == run_second.span
    assert note.read_text() == f"00-{TRACE}-{shell.span}-01,them=1\n"
    assert shell.resource["service.name"] == "pubsubflow"


async def test_a_run_that_joins_traces_stands_in_the_last_and_links_the_others(daemon, collector):
    async with daemon(JOIN, endpoint=collector.url) as client:
        await client.emit("x://x", traceparent=REMOTE_PARENT)
        await client.emit("x://y", traceparent=OTHER_PARENT)
        (run,) = await collector.until("run join")
        (see,) = collector.named("task join.see")
        (go_on,) = collector.named("task join.go_on")
        posts = {span.trace: span for span in await collector.until(_POST, 2)}
        assert (run.trace, run.parent) == ("c" * 32, posts["c" * 32].span)
        assert run.links == ((TRACE, posts[TRACE].span),)
        assert (see.parent, go_on.parent) == (run.span, run.span)
        assert not run.failed

        # What fails says so, and what it had published before belongs to it; without a parent
        # from outside a request begins a trace.
        await client.emit("x://failing")
        (failed,) = await collector.until("run fails")
        (hears,) = await collector.until("run hears")
        (task,) = collector.named("task fails.tell_and_fail")
        assert task.failed
        assert failed.failed
        assert task.trace == hears.trace == failed.trace
        assert hears.parent == task.span

        # CloudEvents carry their own context, whatever the request says.
        for name in ("x", "y"):
            event = {"specversion": "1.0", "id": name, "source": "s", "type": "t"}
            event |= {"subject": f"x://{name}", "traceparent": REMOTE_PARENT}
            headers = {"Content-Type": "application/cloudevents+json", "traceparent": OTHER_PARENT}
            await client.post("/api/v1/cloudevents", event, **headers)
        _, run = await collector.until("run join", 2)
        assert (run.trace, run.parent, run.links) == (TRACE, PARENT, ())

        # A request for a run is its parent; one that is not to be sampled leaves no spans.
        before = len(collector.spans)
        quiet = f"00-{'e' * 32}-{'f' * 16}-00"
        await client.post("/api/v1/dags/join/runs", {}, traceparent=quiet)
        await client.post("/api/v1/dags/join/runs", {}, traceparent=REMOTE_PARENT)
        *_, run = await collector.until("run join", 3)
        started = collector.named("POST /api/v1/dags/{dag_id}/runs")
        assert run.parent in {span.span for span in started}
        assert not [span for span in collector.spans[before:] if span.trace == "e" * 32]


_POST = "POST /api/v1/datasets/events"


async def test_a_collector_that_does_not_answer_holds_up_nothing(daemon, collector, tmp_path):
    collector.hangs = True
    note = tmp_path / "note"
    text = CHAIN.replace("{note}", str(note))
    async with daemon(text, endpoint=collector.url) as client:
        await client.emit("x://b")
        await collector.requested.wait()
        run_id = (await client.post("/api/v1/dags/second/runs", {}))["run_id"]
        text, _ = await client.text(f"/api/v1/runs/{run_id}/wait?timeout=50")
        assert '"state":"success"' in text
    assert collector.spans == []


def test_nothing_of_opentelemetry_is_imported_where_traces_are_off():
    code = (
        "import sys, asyncio\n"
        "import pubsubflow.daemon\n"
        "from pubsubflow.tracing import TracesSettings, open_tracing\n"
        "async def main():\n"
        "    async with open_tracing(TracesSettings(), {}) as tracing:\n"
        "        assert not tracing.on and tracing.begin('x') == 'x'\n"
        "asyncio.run(main())\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_an_endpoint_that_is_no_address_is_a_configuration_error(daemon):
    with pytest.raises(ExceptionGroup) as failed:
        async with daemon("", endpoint="collector:4318"):
            pass
    assert failed.group_contains(ConfigError, match=r"traces\.endpoint 'collector:4318'")


async def test_contexts_travel_with_messages_also_where_no_collector_is_set(bus, database):
    """What is published on the bus with a context keeps it, up to the message about its run."""
    manager, stopping = Manager(database=database, bus=bus), anyio.Event()
    await Catalog(database).save([loaded(dag("d", task("t"), on=["x://a"]))])
    heard, both = {}, anyio.Event()

    def hear(message):
        carried = {name: message.headers.get(name) for name in ("traceparent", "tracestate")}
        heard[message.subject.split(".")[2]] = carried
        if len(heard) == 2:
            both.set()

    async with anyio.create_task_group() as group, await bus.subscribe("psf.evt.>", hear):
        await group.start(manager.run, stopping)
        body = encode(PublishedEvent(0, 0, -1, "0.0.-1.k", "x://a"))
        headers = {"Traceparent": REMOTE_PARENT, "tracestate": "a=1"}  # Go's clients write it so
        bus.publish(f"{Subjects.EVENT}.0", body, headers)
        with anyio.fail_after(120):
            await both.wait()
        stopping.set()
    expected = {"traceparent": REMOTE_PARENT, "tracestate": "a=1"}
    assert heard == {"dataset": expected, "run": expected}
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT trace FROM event") == f"{REMOTE_PARENT} a=1"
