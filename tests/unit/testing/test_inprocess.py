"""A DAG run in the calling process goes as the daemon would take it."""

import asyncio
import os
import signal
import sys
import threading
from datetime import UTC, datetime, timedelta

import anyio
import anyio.lowlevel
import msgspec
import pytest

from pubsubflow import (
    DAG,
    BashOperator,
    Context,
    Cron,
    Dataset,
    EmptyOperator,
    TaskFailed,
    TaskSkipped,
    current_context,
    dag,
    partitioned,
    roll_up,
    setup,
    task,
    teardown,
)
from pubsubflow.errors import DefinitionError, InvalidInput, NotFound
from pubsubflow.testing import LogLine

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
orders = Dataset("s3://lake/orders")
rates = Dataset("s3://lake/rates")
report = Dataset("s3://lake/report")


@task
def one():
    return 1


@task
def fails():
    raise ValueError("broken")


@task(trigger_rule="one_failed")
def clean():
    return "cleaned"


def test_events_may_be_given_by_dataset_as_a_context_has_them():
    @task
    def rows(ctx: Context):
        return [event.extra["rows"] for event in ctx.events[orders]]

    with DAG("x", schedule=orders) as made:
        rows()
    assert made.test(events={orders: [{"rows": 1}, {"rows": 2}]}).result("rows") == [1, 2]
    assert made.test(events={"s3://lake/orders": {"rows": 3}}).result("rows") == [3]


def test_events_give_params_and_partition():
    @task
    def show(ctx: Context):
        return [ctx.run.params, ctx.run.partition]

    texts = {"day": "partition", "rows": "events.map(e, e.extra.rows)"}
    options = {"params": {"day": None, "rows": [], "depth": 1}, "params_from": texts}
    with DAG("x", schedule=partitioned(orders, by=roll_up(to="day", of="hour")), **options) as made:
        show()
    events = [(orders, {"rows": n}, f"2026-11-20T0{n}", NOON) for n in range(2)]
    day = "2026-11-20"
    assert made.test(events=events).result("show") == [
        {"day": day, "rows": [0, 1], "depth": 1},
        day,
    ]
    given = made.test({"rows": [7]}, events=[(orders, {}, "2026-11-20T00")]).result("show")
    assert given == [{"day": day, "rows": [7], "depth": 1}, day]
    assert made.test().result("show") == [options["params"], None]


def test_published_events_are_there_once_also_after_a_retry():
    @task(outlets=[orders, rates], retries=1)
    async def stream(ctx: Context):
        await ctx.publish(orders, extra={"n": 1}, time=NOON)
        if ctx.attempt == 1:
            raise ValueError("broken")
        await ctx.publish(orders, extra={"n": 2})

    @task(outlets=Dataset.match("s3://lake/*/clean"))
    def write(ctx: Context):
        ctx.publish_now("s3://lake/de/clean")
        ctx.emit("s3://lake/pl/clean")

    with DAG("x") as made:
        stream() >> write()
    done = made.test()
    assert [(event.dataset, event.extra) for event in done.emitted] == [
        (orders.uri, {"n": 1}),
        (orders.uri, {"n": 2}),
        (rates.uri, {}),
        ("s3://lake/de/clean", {}),
        ("s3://lake/pl/clean", {}),
    ]
    assert (done.emitted[0].time, done.emitted[0].task_id) == (NOON, "stream")


@task
def numbers():
    return [1, 2, 3]


@task
async def square(x):
    return x * x


@task
def total(values):
    return sum(values)


def test_results_flow_through_async_and_plain_tasks():
    with DAG("d") as made:
        total(square.expand(x=numbers()))
    run = made.test()
    assert run.state == "success"
    assert run.result("total") == 14
    assert run.result("square") == [1, 4, 9]
    assert [(each.map_index, each.value) for each in run.tasks["square"]] == [
        (0, 1),
        (1, 4),
        (2, 9),
    ]


def test_values_arrive_as_they_do_elsewhere():
    class Row(msgspec.Struct):
        day: datetime

    seen = []
    with DAG("d") as made:

        @task
        def give():
            return {"pair": (1, 2), "row": Row(NOON), "none": None}

        @task
        def take(value):
            seen.append(value)

        take(give())
    run = made.test()
    assert seen == [{"pair": [1, 2], "row": {"day": NOON}, "none": None}]
    assert run.result("give") == seen[0]
    assert run.result("take") is None


def test_a_value_that_cannot_travel_fails_its_task():
    with DAG("d") as made:

        @task(retries=3)
        def give():
            return object()

        give()
    given = made.test().tasks["give"][0]
    assert (given.state, given.attempts) == ("failed", 1)
    assert "a result may be" in given.error.message


def test_delays_pass_on_the_virtual_clock():
    attempts = []
    with DAG("d") as made:

        @task(retries=3, retry_delay=timedelta(hours=1), retry_backoff=2)
        def flaky(ctx: Context):
            attempts.append(ctx.attempt)
            if ctx.attempt < 3:
                raise OSError("away")
            return "here"

        flaky()
    run = made.test(now=NOON)
    assert attempts == [1, 2, 3]
    assert run.tasks["flaky"][0].attempts == 3
    assert (run.started_at, run.ended_at) == (NOON, NOON + timedelta(hours=3))


def test_delays_of_several_tasks_end_in_order():
    order = []

    def flaky(name, hours):
        @task(task_id=name, retries=1, retry_delay=timedelta(hours=hours))
        async def body(ctx: Context):
            order.append(f"{name}{ctx.attempt}")
            if ctx.attempt == 1:
                raise OSError

        return body()

    with DAG("d") as made:
        flaky("long", 5)
        flaky("short", 1)
    run = made.test(now=NOON)
    assert order == ["long1", "short1", "short2", "long2"]
    assert run.ended_at == NOON + timedelta(hours=5)


def test_a_task_at_work_does_not_hold_up_a_delay_for_ever():
    again = asyncio.Event()
    with DAG("d") as made:

        @task
        async def waits():
            await again.wait()

        @task(retries=1, retry_delay=0.01)
        async def retried(ctx: Context):
            if ctx.attempt == 1:
                raise OSError
            again.set()

        waits()
        retried()
    assert made.test().state == "success"


def test_a_final_failure_is_not_tried_again():
    with DAG("d") as made:

        @task(retries=5)
        def refuses():
            raise TaskFailed("the account is closed")

        refuses()
    ended = made.test().tasks["refuses"][0]
    assert (ended.attempts, ended.error.message) == (1, "the account is closed")


def test_failures_keep_the_users_traceback():
    with DAG("d") as made:
        fails() >> one()
    run = made.test()
    assert run.state == "failed"
    assert run.states == {"fails": "failed", "one": "upstream_failed"}
    error = run.tasks["fails"][0].error
    assert (error.type, error.message) == ("ValueError", "broken")
    assert 'raise ValueError("broken")' in error.traceback
    assert "attempts.py" not in error.traceback
    assert run.tasks["one"][0].attempts == 0


@pytest.mark.parametrize("body", [fails, square.override(task_id="fails")])
def test_raise_on_error_raises_the_users_exception(body):
    with DAG("d") as made:
        body(*(["x"] if body is not fails else []))
    with pytest.raises(ValueError if body is fails else TypeError) as caught:
        made.test(raise_on_error=True)
    assert caught.traceback[-1].frame.code.name in ("fails", "square")


def test_raise_on_error_waits_for_the_last_attempt():
    with DAG("d") as made:

        @task(retries=1, retry_delay=60)
        def flaky(ctx: Context):
            if ctx.attempt == 1:
                raise OSError

        flaky()
    assert made.test(raise_on_error=True).state == "success"


def test_results_that_are_not_there_say_why():
    with DAG("d") as made:
        fails()
    run = made.test()
    with pytest.raises(InvalidInput, match="'fails' has no result, it is failed: ValueError"):
        run.result("fails")
    with pytest.raises(NotFound, match="did you mean 'fails'"):
        run.result("fail")


def test_trigger_rules_decide():
    with DAG("d") as made:
        [one(), fails()] >> clean()
        one() >> clean()
    run = made.test()
    assert run.states == {
        "one": "success",
        "fails": "failed",
        "clean": "success",
        "one__1": "success",
        "clean__1": "skipped",
    }
    assert run.state == "success"


def test_a_branch_is_followed():
    with DAG("d") as made:

        @task.branch
        def choose():
            return "left"

        join = EmptyOperator(task_id="join", trigger_rule="none_failed_min_one_success")
        choose() >> [EmptyOperator(task_id=name) for name in ("left", "right")] >> join
    assert made.test().states == {
        "choose": "success",
        "left": "success",
        "right": "skipped",
        "join": "success",
    }


def test_a_short_circuit_stops_what_follows_and_its_news():
    with DAG("d") as made:

        @task.short_circuit(outlets=[orders])
        def any_news():
            return False

        any_news() >> one() >> EmptyOperator(task_id="end", trigger_rule="all_done")
    run = made.test()
    assert run.states == {"any_news": "success", "one": "skipped", "end": "skipped"}
    assert run.emitted == []


def test_a_task_may_skip_itself():
    with DAG("d") as made:

        @task
        def skips():
            raise TaskSkipped("nothing to do")

        skips() >> one()
    run = made.test()
    assert run.states == {"skips": "skipped", "one": "skipped"}
    assert run.state == "success"


def test_setup_and_teardown():
    with DAG("d") as made:

        @setup
        def create():
            return "table"

        @teardown
        def drop():
            return "dropped"

        create() >> fails() >> drop()
    run = made.test()
    assert run.state == "failed"
    assert run.result("drop") == "dropped"


def test_mapping_is_the_product_with_the_last_factor_fastest():
    with DAG("d") as made:

        @task
        def pair(x, y):
            return f"{x}{y}"

        pair.expand(x=numbers(), y=["a", "b"])
    assert made.test().result("pair") == ["1a", "1b", "2a", "2b", "3a", "3b"]


def test_instances_are_in_map_order_whoever_ends_first():
    ended = []
    with DAG("d") as made:

        @task
        async def odd_ones(x):
            for _ in range(4 - x):
                await anyio.lowlevel.checkpoint()
            ended.append(x)
            return x if x % 2 else None

        @task
        def gather(values):
            return values

        gather(odd_ones.expand(x=numbers()))
    run = made.test()
    assert ended == [3, 2, 1]
    assert [each.map_index for each in run.tasks["odd_ones"]] == [0, 1, 2]
    assert run.result("gather") == run.result("odd_ones") == [1, None, 3]


def test_mapping_over_nothing_and_over_no_list():
    with DAG("d") as made:

        @task
        def nothing():
            return []

        square.expand(x=nothing())
        square.expand(x=one())
    run = made.test()
    assert run.states["square"] == "skipped"
    assert run.states["square__1"] == "failed"
    assert "not a list" in run.tasks["square__1"][0].error.message
    with pytest.raises(DefinitionError, match="not a list"):
        made.test(raise_on_error=True)


def test_one_bad_instance_fails_its_task_alone():
    with DAG("d") as made:

        @task
        def third(x):
            if x == 2:
                raise ValueError(x)
            return x

        @task(trigger_rule="all_done")
        def gather(values):
            return values

        gather(third.expand(x=numbers()))
    run = made.test()
    assert [each.state for each in run.tasks["third"]] == ["success", "failed", "success"]
    assert run.result("gather") == [1, 3]


def test_params_are_checked_and_typed():
    class Params(msgspec.Struct):
        day: str
        rows: int = 10

    with DAG("d", params=Params) as made:

        @task
        def read(ctx: Context):
            return [ctx.run.params.day, ctx.run.params.rows]

        read()
    assert made.test({"day": "monday"}).result("read") == ["monday", 10]
    assert made.test(Params("friday", 3)).result("read") == ["friday", 3]
    with pytest.raises(InvalidInput, match="'day' must be given"):
        made.test()
    with pytest.raises(InvalidInput, match="rows"):
        made.test({"day": "monday", "rows": "many"})


def sum_of_rows():
    with DAG("d", schedule=orders & rates) as made:

        @task
        def add(ctx: Context):
            return sum(event.extra.get("rows", 0) for event in ctx.events[orders])

        @task
        def where(ctx: Context):
            return [ctx.run.kind, ctx.run.partition, ctx.run.cause, len(ctx.events[rates])]

        add()
        where()
    return made


def test_events_are_what_the_run_consumed():
    class Seen(msgspec.Struct):
        dataset: str
        extra: dict

    events = [(orders, {"rows": 2}), Seen(orders.uri, {"rows": 3}), ("s3://lake/rates", {}, "11")]
    run = sum_of_rows().test(events=events)
    assert run.result("add") == 5
    assert run.result("where") == ["dataset", None, "s3://lake/rates was updated", 1]


def test_without_events_a_run_is_asked_for():
    assert sum_of_rows().test().result("where") == ["manual", None, "requested by a test", 0]


def test_events_that_nobody_waits_for_are_refused():
    with pytest.raises(InvalidInput, match=r"does not wait for .*did you mean 's3://lake/orders'"):
        sum_of_rows().test(events=["s3://lake/order"])
    with pytest.raises(InvalidInput, match="is not an event"):
        sum_of_rows().test(events=[42])


def test_a_tick_has_its_logical_time():
    with DAG("d", schedule=Cron("0 16 * * *")) as made:

        @task
        async def when(ctx: Context):
            return [ctx.run.kind, ctx.run.logical_time]

        when()
    assert made.test(logical_time=NOON).result("when") == ["cron", NOON]


def test_emitted_holds_news_of_successes_and_feeds_the_next_dag():
    with DAG("producer") as producer:

        @task(outlets=[orders, report], retries=1)
        def load(ctx: Context):
            ctx.emit(orders, extra={"rows": ctx.attempt}, partition="11")
            if ctx.attempt == 1:
                raise OSError

        @task(outlets=[report])
        def never():
            raise OSError

        load() >> EmptyOperator(task_id="done", outlets=[rates])
        never()
    run = producer.test()
    told = [(event.dataset, event.extra, event.partition) for event in run.emitted]
    assert told == [
        (orders.uri, {"rows": 2}, "11"),
        (report.uri, {}, None),
        (rates.uri, {}, None),
    ]
    mine = [event for event in run.emitted if event.dataset != report.uri]
    assert sum_of_rows().test(events=mine).result("add") == 2


def test_output_is_kept_and_still_printed(capsys):
    with DAG("d") as made:

        @task(retries=1)
        async def tells(ctx: Context):
            print("attempt", ctx.attempt)
            ctx.log.info("rows.loaded", rows=42)
            await anyio.lowlevel.checkpoint()
            sys.stderr.write("no line end")
            if ctx.attempt == 1:
                raise OSError

        tells()
        BashOperator(task_id="shell", bash_command="echo out; echo err\u2028or >&2")
    before = sys.stdout
    run = made.test()
    assert sys.stdout is before
    first = [
        LogLine(1, "stdout", "attempt 1"),
        LogLine(1, "log", "rows.loaded", "info", {"rows": 42}),
        LogLine(1, "stderr", "no line end"),
    ]
    assert list(run.tasks["tells"][0].logs[:3]) == first
    assert {line.attempt for line in run.tasks["tells"][0].logs[3:]} == {2}
    assert {(line.stream, line.message) for line in run.tasks["shell"][0].logs} == {
        ("stdout", "out"),
        ("stderr", "err\u2028or"),
    }
    assert "attempt 1\nattempt 2\n" in capsys.readouterr().out


def test_async_tasks_run_side_by_side():
    met = []
    with DAG("d") as made:
        barrier = [asyncio.Event(), asyncio.Event()]

        @task
        async def meets(mine, other):
            barrier[mine].set()
            await barrier[other].wait()
            met.append(mine)

        meets(0, 1)
        meets(1, 0)
    assert made.test().state == "success"
    assert sorted(met) == [0, 1]


def test_plain_tasks_run_one_after_another_in_the_calling_thread():
    spans = []
    with DAG("d") as made:

        @task
        def body(x):
            spans.append(("in", x))
            asyncio.run(asyncio.sleep(0))  # a task has no loop around it, here as elsewhere
            spans.append(("out", x))
            return threading.get_ident()

        body.expand(x=[1, 2, 3])
    run = made.test()
    assert spans == [(way, x) for x in (1, 2, 3) for way in ("in", "out")]
    assert set(run.result("body")) == {threading.get_ident()}


def test_timeouts():
    with DAG("d") as made:

        @task(timeout=0.01, retries=1)
        async def hangs():
            await anyio.sleep_forever()

        @task(timeout=0.001)
        def busy():
            threading.Event().wait(0.02)

        hangs()
        busy()
    run = made.test()
    assert run.states == {"hangs": "failed", "busy": "failed"}
    assert run.tasks["hangs"][0].attempts == 2
    assert run.tasks["hangs"][0].error.message == "timed out after 0.01 s"
    assert run.tasks["busy"][0].error.type == "TimeoutError"


def test_a_run_ends_at_its_timeout_on_either_clock():
    with DAG("virtual", timeout=60) as virtual:

        @task(retries=5, retry_delay=50)
        def flaky():
            raise OSError

        flaky() >> one()
    run = virtual.test(now=NOON)
    assert run.state == "failed"
    assert run.error == "the run took longer than its timeout of 60 s"
    assert run.ended_at == NOON + timedelta(seconds=60)
    assert run.states == {"flaky": "failed"}
    assert run.tasks["flaky"][0].state == "cancelled"
    with DAG("real", timeout=0.01) as real:

        @task
        async def hangs():
            await anyio.sleep_forever()

        hangs()
    assert real.test().tasks["hangs"][0].state == "cancelled"


def test_a_task_that_raises_a_cancellation_itself_fails():
    with DAG("d") as made:

        @task
        async def odd():
            raise asyncio.CancelledError

        @task
        def leaves():
            sys.exit(3)

        odd()
        leaves()
    run = made.test()
    assert run.states == {"odd": "failed", "leaves": "failed"}
    assert run.tasks["leaves"][0].error.type == "SystemExit"


def test_an_interrupt_ends_the_test():
    with DAG("d") as made:

        @task
        def stopped():
            raise KeyboardInterrupt

        @task
        async def goes_on():
            await anyio.sleep_forever()

        goes_on()
        stopped()
    before = sys.stdout
    with pytest.raises(KeyboardInterrupt):
        made.test()
    assert sys.stdout is before


@pytest.fixture
def interruptible():
    """Take interrupts as in a terminal: what runs in the background ignores them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("how", ["raised", "signalled"])
def test_an_interrupt_while_async_tasks_run_ends_the_test(how):
    with DAG("d") as made:

        @task
        async def interrupts():
            if how == "raised":
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGINT)
            await anyio.sleep_forever()

        interrupts()
    before = sys.stdout
    with pytest.raises(KeyboardInterrupt):
        made.test()
    assert sys.stdout is before


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit])
def test_raise_on_error_raises_what_no_loop_survives(kind):
    with DAG("d") as made:

        @task
        async def leaves():
            raise kind(3)

        leaves()
    with pytest.raises(kind):
        made.test(raise_on_error=True)


def test_bad_arguments_fail_their_task():
    with DAG("d") as made:

        @task
        def typed(row: dict):
            return row["x"]

        typed(one()["x"])
    ended = made.test().tasks["typed"][0]
    assert (ended.state, ended.error.type) == ("failed", "DefinitionError")


def test_a_dag_without_tasks_succeeds():
    with DAG("d") as made:
        pass
    run = made.test()
    assert (run.state, run.tasks) == ("success", {})


def test_ctx_result_and_current_context():
    with DAG("d") as made:

        @task
        def asks():
            return current_context().result("square")

        square.expand(x=numbers()) >> asks()
    assert made.test().result("asks") == [1, 4, 9]


def test_a_result_that_a_task_lacks_fails_whoever_asks():
    with DAG("d") as made:

        @task(trigger_rule="all_done")
        def asks(ctx: Context):
            return ctx.result("fails")

        fails() >> asks()
    ended = made.test().tasks["asks"][0]
    assert (ended.error.type, ended.error.message) == ("Unavailable", "task 'fails' has no result")


def test_decorated_dags_have_it_too():
    @dag
    def small():
        one()

    assert small.test().result("one") == 1
    assert small().test().result("one") == 1
