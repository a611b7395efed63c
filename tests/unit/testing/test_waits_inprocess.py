"""DAG.test with tasks that wait: virtual time, triggers, events, replays, what never happens."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from psf_waiting_triggers import Answer, Broken, Never, Pause, Silent

from pubsubflow import (
    Context,
    Dataset,
    Operator,
    StepFailed,
    TriggerError,
    WaitTimeout,
    dag,
    task,
)
from pubsubflow.errors import InvalidInput, ReplayMismatch
from pubsubflow.testing import event

ORDERS = Dataset("s3://lake/orders")
RATES = Dataset("s3://lake/rates")
HOUR = timedelta(hours=1)
START = datetime(2026, 11, 20, 16, tzinfo=UTC)


def one(function, **options):
    """Return a DAG with one task."""

    @dag(dag_id="one")
    def made():
        task(task_id="t", **options)(function)()

    return made


def sensing(wanted, **options):
    @dag(dag_id="one")
    def made():
        @task.sensor(wanted, task_id="t", **options)
        def arrived(event): ...

        arrived()

    return made


def test_time_is_virtual_and_steps_are_done_once():
    done = []

    async def body(ctx: Context):
        print("from the top")
        await ctx.step("one", lambda: done.append("one"))
        await ctx.sleep(HOUR)
        await ctx.wait(Pause(length=HOUR))
        return await ctx.step("two", asyncio.sleep, 0, "two")

    run = one(body).test(now=START)
    assert (run.result("t"), done) == ("two", ["one"])
    assert run.ended_at - run.started_at == 2 * HOUR
    (t,) = run.tasks["t"]
    assert [line.message for line in t.logs] == ["from the top"] * 3
    assert t.attempts == 1


def test_waits_pass_side_by_side():
    @dag
    def many():
        @task
        async def nap(hours: int, ctx: Context):
            for _ in range(2):
                await ctx.sleep(hours * HOUR)
            return hours

        nap.expand(hours=list(range(1, 40)))

    run = many.test()
    assert run.result("nap") == list(range(1, 40))
    assert run.ended_at - run.started_at == 78 * HOUR


def test_triggers_run_on_virtual_time():
    async def body(ctx: Context):
        seen = await ctx.wait(Answer(payload={"a": [1]}, seconds=3600))
        first = await ctx.first(Answer(seconds=30), Answer(payload="fast", seconds=20), HOUR)
        both = await ctx.all(Answer(payload=1, seconds=30), Answer(payload=2, seconds=20))
        return seen.payload, seen.id, first.index, [each.payload for each in both]

    run = one(body).test()
    assert run.result("t") == [{"a": [1]}, "the-answer", 1, [1, 2]]
    assert run.ended_at - run.started_at == HOUR + timedelta(seconds=50)


@pytest.mark.parametrize(
    ("trigger", "text"),
    [
        (Broken(text="no route"), "test.Broken: OSError: no route"),
        (Silent(), "test.Silent: it ended without an event"),
    ],
)
def test_a_trigger_that_fails_fails_the_wait(trigger, text):
    async def body(ctx: Context):
        with pytest.raises(TriggerError) as error:
            await ctx.wait(trigger)
        return str(error.value)

    assert one(body).test().result("t") == text


def test_a_wait_may_time_out():
    async def body(ctx: Context):
        with pytest.raises(WaitTimeout):
            await ctx.first(ORDERS, Never(), timeout=HOUR)
        await ctx.wait(Answer(seconds=5), timeout=HOUR)

    run = one(body).test(raise_on_error=True)
    assert run.ended_at - run.started_at == HOUR + timedelta(seconds=5)


def test_events_of_the_run_are_waited_for():
    @dag
    def pair():
        @task(outlets=[ORDERS])
        async def source(ctx: Context):
            for number in range(3):
                await ctx.sleep(60)
                await ctx.publish(ORDERS, extra={"n": number})
            ctx.emit(ORDERS, extra={"n": 3}, partition="last")

        @task
        async def sink(ctx: Context):
            found = []
            for _ in range(3):
                one = await ctx.wait_for_event(ORDERS, where="event.extra.n != 1")
                found.append((one.extra["n"], one.partition, one.task_id))
                await ctx.sleep(200)
            return found

        source()
        sink()

    assert pair.test().result("sink") == [
        [0, None, "source"],
        [2, None, "source"],
        [3, "last", "source"],
    ]


def test_what_was_recorded_before_the_call_does_not_count():
    @dag
    def pair():
        @task(outlets=[ORDERS])
        def source(): ...

        @task
        async def sink(back: int, ctx: Context):
            await ctx.sleep(60)
            return (await ctx.wait_for_event(ORDERS, lookback=back, timeout=5)).dataset

        source() >> [sink.override(task_id="late")(30), sink.override(task_id="early")(90)]

    run = pair.test()
    assert run.states == {"source": "success", "late": "failed", "early": "success"}
    assert run.tasks["late"][0].error.type == "WaitTimeout"


def test_what_was_recorded_in_the_moment_before_does_not_count():
    @dag
    def pair():
        @task(outlets=[ORDERS])
        def source(): ...

        @task
        async def sink(ctx: Context):
            await ctx.wait_for_event(ORDERS)

        source() >> sink()

    with pytest.raises(InvalidInput, match="task 'sink' waits for s3://lake/orders, which never"):
        pair.test()


def test_events_may_be_given():
    async def body(ctx: Context):
        one = await ctx.wait_for_event(ORDERS)
        await ctx.sleep(60)
        two = await ctx.wait_for_event(ORDERS)
        three = await ctx.wait_for_event(Dataset.match("s3://lake/*"), where="event.extra.n > 9")
        return [each.extra["n"] for each in (one, two, three)]

    later = event(RATES, extra={"n": 10}, time=START + HOUR)
    given = [(ORDERS, {"n": 1}), later, (ORDERS, {"n": 2})]
    run = one(body).test(events=given, now=START)
    assert run.result("t") == [1, 2, 10]
    assert run.ended_at == START + HOUR


def test_consumed_events_are_behind_the_run():
    @dag(schedule=ORDERS)
    def follows():
        @task
        async def sink(ctx: Context):
            (consumed,) = ctx.events[ORDERS]
            seen = await ctx.wait_for_event(ORDERS, lookback=HOUR)
            with pytest.raises(WaitTimeout):
                await ctx.wait_for_event(ORDERS, timeout=1)
            return consumed.event_id == seen.event_id

        sink()

    assert follows.test(events=[ORDERS]).result("sink")


def test_events_that_nobody_can_wait_for_are_refused():
    def body(): ...

    with pytest.raises(InvalidInput, match="does not wait for 's3://lake/orders'"):
        one(body).test(events=[ORDERS])


@pytest.mark.parametrize("wanted", [ORDERS, Never()])
def test_what_never_happens_is_named(wanted):
    async def body(ctx: Context):
        await ctx.first(wanted)

    with pytest.raises(InvalidInput, match=r"task 't' waits for first\(") as error:
        one(body).test()
    assert ("time passes without end" in str(error.value)) == isinstance(wanted, Never)


def test_a_wait_within_the_dags_timeout_ends_the_run():
    @dag(timeout=60)
    def short():
        @task
        async def t(ctx: Context):
            await ctx.sleep(HOUR)

        t()

    run = short.test()
    assert (run.state, run.tasks["t"][0].state) == ("failed", "cancelled")
    assert run.ended_at - run.started_at == timedelta(minutes=1)


def test_a_tasks_timeout_counts_its_waits():
    async def body(ctx: Context):
        await ctx.sleep(40)
        await ctx.sleep(40)

    run = one(body, timeout=60).test()
    (t,) = run.tasks["t"]
    assert t.error.type == "TimeoutError"
    assert t.error.message == "timed out after 60 s, while it waited for sleep"
    assert run.ended_at - run.started_at == timedelta(minutes=1)
    assert one(body, timeout=90).test().state == "success"
    run = one(body, timeout=60, retries=1, retry_delay=10).test()
    assert (run.state, run.tasks["t"][0].attempts) == ("success", 2)
    assert run.ended_at - run.started_at == timedelta(seconds=60 + 10 + 40)


def test_a_further_attempt_goes_on_where_the_one_before_failed():
    done = []

    def load(number):
        done.append(number)
        if len(done) < 4:
            raise OSError("no disk")
        return number

    async def body(ctx: Context):
        await ctx.step("first", done.append, "first")
        await ctx.sleep(HOUR)
        return await ctx.step("load", load, 5), ctx.attempt

    run = one(body, retries=3).test()
    assert (run.result("t"), done) == ([5, 3], ["first", 5, 5, 5])
    assert run.ended_at - run.started_at == HOUR


def test_a_step_that_fails_in_the_end_fails_the_task():
    def load():
        raise OSError("no disk")

    async def body(ctx: Context):
        await ctx.step("load", load)

    run = one(body, retries=2).test()
    (t,) = run.tasks["t"]
    assert (t.attempts, t.error.type) == (3, "StepFailed")
    with pytest.raises(StepFailed, match="step 'load' failed: OSError: no disk"):
        one(body).test(raise_on_error=True)


def test_another_path_is_shown():
    count = []

    async def body(ctx: Context):
        count.append(1)
        await ctx.step(f"step {len(count)}", print)
        await ctx.sleep(1)

    run = one(body, retries=3).test()
    (t,) = run.tasks["t"]
    assert (t.attempts, t.error.type) == (1, "ReplayMismatch")
    count.clear()
    with pytest.raises(ReplayMismatch, match="step 'step 1' here before, and now step 'step 2'"):
        one(body).test(raise_on_error=True)


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        (Answer(payload={"a": 1}, seconds=60), {"a": 1}),
        (timedelta(seconds=60), None),
        (lambda ctx: Answer(payload=ctx.task.task_id, seconds=60), "t"),
    ],
)
def test_a_sensor_gives_the_payload(wanted, value):
    run = sensing(wanted).test()
    assert run.result("t") == value
    assert run.ended_at - run.started_at == timedelta(minutes=1)
    assert run.tasks["t"][0].attempts == 1


@pytest.mark.parametrize("wanted", [ORDERS, lambda ctx: ORDERS.where("event.extra.n > 1")])  # noqa: ARG005
def test_a_sensor_of_a_dataset_gives_the_event(wanted):
    given = [(ORDERS, {"n": 2}, "p", START - HOUR)]
    value = sensing(wanted).test(events=given, now=START).result("t")
    assert (value["dataset"], value["extra"], value["partition"]) == (ORDERS.uri, {"n": 2}, "p")
    assert value["time"] == START - HOUR


def test_a_sensor_that_times_out_waits_anew():
    run = sensing(Never(), timeout=60, retries=2, retry_delay=10).test()
    (t,) = run.tasks["t"]
    assert (t.state, t.attempts, t.error.type) == ("failed", 3, "WaitTimeout")
    assert run.ended_at - run.started_at == timedelta(seconds=200)
    with pytest.raises(WaitTimeout, match="Never did not happen in time"):
        sensing(Never(), timeout=60).test(raise_on_error=True)


def test_a_sensors_function_gets_the_event():
    @dag
    def made():
        @task
        def name():
            return "x"

        @task.sensor(Answer(payload=1))
        def plain(event, more: str, ctx: Context):
            return [event.payload, more, ctx.trigger_event.payload]

        @task.sensor(Answer(payload=2))
        async def asynchronous(event, more: str = "y"):
            return [event.payload, more]

        @task.sensor(Answer(payload=name()), retries=1)
        async def later(event, ctx: Context):
            await ctx.step("s", asyncio.sleep, 0)
            if ctx.attempt == 1:
                raise OSError
            return [event.payload, ctx.attempt]

        plain(name())
        asynchronous()
        later()

    run = made.test()
    assert run.result("plain") == [1, "x", 1]
    assert run.result("asynchronous") == [2, "y"]
    assert run.result("later") == ["x", 2]


def test_operators_begin_with_a_wait():
    class Waits(Operator):
        template_fields = ("path",)

        def __init__(self, path, **kwargs):
            super().__init__(**kwargs)
            self.path = path

        @property
        def start_trigger(self):
            return Answer(payload=self.path, seconds=5)

    class Works(Waits):
        async def execute(self, ctx):
            await ctx.sleep(1)
            return ["worked", ctx.trigger_event.payload]

    class Fields(Operator):
        start_trigger = Answer(payload="{{ run.params.x }}")

    @dag(params={"x": "{{ 1 }}"})
    def made():
        @task
        def path():
            return "result"

        Waits("static", task_id="static")
        Waits("{{ run.params.x }}!", task_id="template")
        Waits(path(), task_id="reference")
        Works("w", task_id="works")
        Fields(task_id="fields")
        Waits.partial(task_id="mapped").expand(path=["a", "b"])

    run = made.test()
    found = {name: run.result(name) for name in run.tasks}
    assert found == {
        "path": "result",
        "static": "static",
        "template": "{{ 1 }}!",
        "reference": "result",
        "works": ["worked", "w"],
        "fields": "{{ 1 }}",
        "mapped": ["a", "b"],
    }


def test_a_mapped_sensor_waits_for_each():
    @dag
    def made():
        @task.sensor(lambda ctx, seconds: Answer(payload=(ctx.task.map_index, seconds), seconds=9))
        def arrived(seconds): ...

        arrived.expand(seconds=[3, 4])

    assert made.test().result("arrived") == [[0, 3], [1, 4]]


def test_what_follows_a_wait_runs_after_it():
    @dag
    def made():
        @task.sensor(HOUR)
        def later(): ...

        @task
        def after(ctx: Context):
            return ctx.result("later")

        later() >> after()

    run = made.test(select="later+")
    assert run.states == {"later": "success", "after": "success"}


@pytest.mark.anyio
async def test_waits_pass_on_the_callers_loop():
    async def body(ctx: Context):
        await ctx.sleep(HOUR)
        await asyncio.gather(*(ctx.step("s", asyncio.sleep, 0, number) for number in range(3)))
        return await ctx.step("block", lambda: "blocked")

    assert (await one(body).atest()).result("t") == "blocked"


def test_a_sleep_ends_while_another_task_works_for_longer():
    @dag
    def made():
        @task
        async def nap(ctx: Context):
            await ctx.sleep(0.01)
            woken.set()

        @task
        async def work():
            await woken.wait()

        nap()
        work()

    woken = asyncio.Event()
    assert made.test().state == "success"
