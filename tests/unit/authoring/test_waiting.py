"""ctx.wait, sleep, wait_for_event, step, first, all: what they give, refuse and record."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from psf_waiting_triggers import Answer, Broken, Pause

from pubsubflow import (
    Context,
    Dataset,
    DefinitionError,
    StepFailed,
    TaskFailed,
    TaskSkipped,
    Trigger,
    TriggerError,
    TriggerEvent,
    WaitTimeout,
)
from pubsubflow.authoring.bind import RunnableDag, bind
from pubsubflow.authoring.runtime.journal import TaskLost
from pubsubflow.authoring.runtime.wait_specs import TaskDeferred
from pubsubflow.errors import LeaseLost, ReplayMismatch, Unavailable
from pubsubflow.model.runs.waits import failed_entry
from pubsubflow.model.wire.messages import JournalEntry, TaskError
from pubsubflow.model.wire.waits import Wait
from support.replay import (
    INFO,
    NOW,
    RecordingHost,
    completed,
    dag_of,
    run_once,
    run_through,
    timed_out,
)

pytestmark = pytest.mark.anyio
ORDERS = Dataset("s3://lake/orders")
THEN = NOW.timestamp()


def waiting_of(deferred):
    return deferred.value.wait_set


class Unknown(Trigger, frozen=True):
    pass


async def waits_of(body):
    """Return what a task that waits once waits for."""
    with pytest.raises(TaskDeferred) as deferred:
        await run_once(dag_of(body), RecordingHost())
    return waiting_of(deferred)


async def test_a_trigger_is_waited_for_and_gives_its_event():
    async def body(ctx: Context):
        return await ctx.wait(Answer(payload={"a": 1}), timeout=timedelta(minutes=1))

    host = RecordingHost()
    event = await run_through(dag_of(body), lambda waiting: completed(waiting, {"a": 1}), host)
    assert event == TriggerEvent({"a": 1}, "id0")
    (waiting,) = host.waited
    assert (waiting.key, waiting.label, waiting.required) == ("0", "test.Answer", 1)
    assert waiting.timeout_at == THEN + 60
    assert waiting.waits[0].kind == "trigger"


async def test_a_name_stands_for_a_trigger():
    async def body(ctx: Context):
        await ctx.wait(Answer(), name="the answer")

    assert (await waits_of(body)).label == "the answer"


async def test_a_trigger_of_time_is_a_timer():
    async def body(ctx: Context):
        await ctx.first(Pause(length=timedelta(hours=1)), timedelta(minutes=1), Answer())

    pause, nap, answer = (await waits_of(body)).waits
    assert pause == Wait("time", "test.Pause", due_at=THEN + 3600)
    assert nap == Wait("time", "sleep", due_at=THEN + 60)
    assert answer.kind == "trigger"


async def test_sleeping_is_a_timer():
    async def body(ctx: Context):
        await ctx.sleep(1.5)

    assert (await waits_of(body)).waits == (Wait("time", "sleep", due_at=THEN + 1.5),)


async def test_an_event_is_waited_for_from_the_call_on():
    async def body(ctx: Context):
        await ctx.wait_for_event(ORDERS, where="event.extra.n > 0", lookback=60)

    (wait,) = (await waits_of(body)).waits
    assert wait == Wait("event", ORDERS.uri, where="event.extra.n > 0", since=THEN - 60)


async def test_a_pattern_is_waited_for():
    async def body(ctx: Context):
        await ctx.wait_for_event(Dataset.match("s3://lake/*").where("event.extra.n > 0"))

    (wait,) = (await waits_of(body)).waits
    assert (wait.pattern, wait.name, wait.where) == (True, "s3://lake/*", "event.extra.n > 0")


async def test_a_loop_goes_on_after_the_event_before():
    async def body(ctx: Context):
        got = [await ctx.wait_for_event(ORDERS), await ctx.wait_for_event("s3://lake/rates")]
        got.append((await ctx.first(timedelta(days=1), ORDERS)).event)
        got.append(await ctx.wait_for_event(ORDERS, where="event.extra.n > 1"))
        return [event.extra["n"] for event in got]

    numbers = iter((7, 3, 9, 12))
    host = RecordingHost()
    value = await run_through(
        dag_of(body),
        lambda waiting: completed(waiting, next(numbers), slot=len(waiting.waits) - 1),
        host,
    )
    assert value == [7, 3, 9, 12]
    told = [(each.waits[-1].since, each.waits[-1].after) for each in host.waited]
    assert told == [(THEN, 0), (THEN, 0), (0.0, 7), (0.0, 9)]


async def test_the_first_of_several_tells_which():
    async def body(ctx: Context):
        first = await ctx.first(Answer(), ORDERS, timedelta(days=1))
        return first.index, first.event.extra["n"]

    host = RecordingHost()
    assert await run_through(dag_of(body), lambda waiting: completed(waiting, 4, slot=1), host) == (
        1,
        4,
    )
    assert host.waited[0].label == "first(test.Answer, s3://lake/orders, sleep)"


async def test_all_of_several_are_given_in_order():
    async def body(ctx: Context):
        assert await ctx.all() == []
        one, two = await ctx.all(ORDERS, Answer())
        return one.extra["n"], two.payload

    host = RecordingHost()
    assert await run_through(dag_of(body), lambda waiting: completed(waiting, 4), host) == (4, 4)
    assert host.waited[0].required == 2


async def test_what_fails_while_it_is_waited_for_is_raised():
    async def body(ctx: Context):
        errors = []
        for trigger in (Answer(), Broken(text="x")):
            try:
                await ctx.wait(trigger)
            except TriggerError as error:
                errors.append(error)
        return errors

    def answer(waiting):
        if waiting.key == "0":
            return timed_out(waiting)
        return failed_entry(waiting, TaskError("OSError", "no route", "Traceback: line 3"))

    late, broken = await run_through(dag_of(body), answer)
    assert isinstance(late, WaitTimeout)
    assert isinstance(late, TimeoutError)
    assert str(late) == "test.Answer did not happen in time"
    assert str(broken) == "test.Broken: OSError: no route"
    assert "line 3" in broken.__notes__[0]


MISTAKES = {
    "not registered": lambda ctx: ctx.wait(Unknown()),
    "call it": lambda ctx: ctx.wait(Answer),
    "takes a trigger": lambda ctx: ctx.wait(5),
    "takes a trigger; use ctx.sleep": lambda ctx: ctx.wait(timedelta(1)),
    "no time zone": lambda ctx: ctx.wait(Answer(at=datetime(2026, 1, 1))),  # noqa: DTZ001
    "Broken: Expected `str`, got `int`": lambda ctx: ctx.wait(Broken(text=5)),
    "timeout=-1 must not be negative": lambda ctx: ctx.wait(Answer(), timeout=-1),
    "timeout=0 must be more than zero": lambda ctx: ctx.first(ORDERS, timeout=0),
    r"ctx.wait\(\) needs a name": lambda ctx: ctx.wait(Answer(), name=""),
    r"ctx.sleep\(\): -3 must not be negative": lambda ctx: ctx.sleep(-3),
    "'soon' must be a timedelta": lambda ctx: ctx.sleep("soon"),
    "needs a scheme": lambda ctx: ctx.wait_for_event("orders"),
    "takes a dataset": lambda ctx: ctx.wait_for_event(5),
    "where: 'event.' is not a CEL": lambda ctx: ctx.wait_for_event(ORDERS, where="event."),
    "lookback=-1": lambda ctx: ctx.wait_for_event(ORDERS, lookback=-1),
    "waits for one event": lambda ctx: ctx.wait_for_event(ORDERS.at_least(2)),
    "needs something to wait for": lambda ctx: ctx.first(),
    "takes triggers, timedeltas and datasets, not 5": lambda ctx: ctx.all(ORDERS, 5),
    "step 'x' takes a function": lambda ctx: ctx.step("x", 5),
    r"ctx.step\(\) needs a name": lambda ctx: ctx.step("", print),
}


@pytest.mark.parametrize("text", MISTAKES)
async def test_bad_arguments_are_refused_at_the_call(text):
    async def body(ctx: Context):
        MISTAKES[text](ctx)

    with pytest.raises(DefinitionError, match=text):
        await run_once(dag_of(body), RecordingHost())


@pytest.mark.parametrize("text", MISTAKES)
async def test_a_plain_task_cannot_wait(text):
    def body(ctx: Context):
        MISTAKES[text](ctx)

    with pytest.raises(DefinitionError, match="works in `async def` tasks only"):
        bind(RunnableDag(dag_of(body)), 0, info=INFO, attempt=1, host=RecordingHost()).run()


async def test_a_step_is_done_once():
    done = []

    async def body(ctx: Context):
        first = await ctx.step("plain", lambda: done.append(threading.get_ident()) or (1, 2))
        await ctx.sleep(1)
        second = await ctx.step("async", asyncio.sleep, 0, result={"a": (3,)})
        await ctx.sleep(1)
        return first, second

    host = RecordingHost()
    assert await run_through(dag_of(body), host=host) == ([1, 2], {"a": [3]})
    assert len(done) == 1
    assert done[0] != threading.get_ident()
    assert [step.label for step in host.journal] == ["plain", "sleep", "async", "sleep"]


async def test_a_lambda_may_give_a_coroutine():
    async def body(ctx: Context):
        return await ctx.step("x", lambda: asyncio.sleep(0, "slept"))

    assert await run_through(dag_of(body)) == "slept"


async def test_a_step_that_fails_is_recorded_and_fails_again():
    def load():
        raise OSError("no disk")

    async def body(ctx: Context):
        try:
            await ctx.step("load", load)
        except StepFailed as error:
            await ctx.sleep(1)
            return str(error), (error.step, error.type, error.message), error.__cause__

    host = RecordingHost()
    text, fields, cause = await run_through(dag_of(body), host=host)
    assert text == "step 'load' failed: OSError: no disk"
    assert fields == ("load", "OSError", "no disk")
    assert cause is None
    with pytest.raises(StepFailed) as raised:
        await run_once(dag_of(lambda_of("load", load)), RecordingHost())
    assert isinstance(raised.value.__cause__, OSError)
    assert "no disk" in host.journal[0].error.traceback


def lambda_of(name, function):
    async def body(ctx: Context):
        return await ctx.step(name, function)

    return body


@pytest.mark.parametrize("kind", [TaskFailed, TaskSkipped])
async def test_what_ends_the_task_goes_through_a_step(kind):
    def stop():
        raise kind("enough")

    host = RecordingHost()
    with pytest.raises(kind, match="enough"):
        await run_once(dag_of(lambda_of("stop", stop)), host)
    assert host.journal == []


async def test_a_value_that_cannot_be_carried_is_refused():
    with pytest.raises(DefinitionError, match="step 'x': the result is a object"):
        await run_once(dag_of(lambda_of("x", object)), RecordingHost())


async def test_steps_cannot_be_nested_nor_tell_news():
    async def outer(ctx, what):
        await what(ctx)

    async def emit(ctx):
        ctx.emit(ORDERS)

    for inner, text in (
        (lambda ctx: ctx.step("inner", print), "step 'inner' is inside of another step"),
        (lambda ctx: ctx.sleep(1), "wait 'sleep' is inside of another step"),
        (emit, r"ctx.emit\(\) is inside of a step"),
        (lambda ctx: ctx.publish(ORDERS), r"ctx.publish\(\) is inside of a step"),
    ):

        async def body(ctx: Context, inner=inner):
            await ctx.step("outer", outer, ctx, inner)

        with pytest.raises(StepFailed, match=text):
            await run_once(dag_of(body, outlets=[ORDERS]), RecordingHost())


async def test_a_wait_beside_other_things_is_refused():
    async def body(ctx: Context):
        await asyncio.gather(ctx.sleep(1), ctx.wait_for_event(ORDERS))

    with pytest.raises(DefinitionError, match=r"wait for several things at once with ctx.first"):
        await run_once(dag_of(body), RecordingHost())


async def test_another_path_is_found_out_before_anything_is_done():
    names, done = ["load", "store"], []

    async def body(ctx: Context):
        await ctx.step(names[0], lambda: done.append(1))
        await ctx.sleep(1)

    host = RecordingHost()
    with pytest.raises(TaskDeferred):
        await run_once(dag_of(body), host)
    names.pop(0)
    with pytest.raises(ReplayMismatch, match="step 'load' here before, and now step 'store'"):
        await run_once(dag_of(body), host)
    assert done == [1]


async def test_a_mismatch_that_is_swallowed_stands():
    async def body(ctx: Context):
        for name in ("a", "b"):
            try:
                await ctx.step(name, print)
            except Exception as error:  # noqa: BLE001
                print(error)
        return "fine"

    host = RecordingHost([JournalEntry("0", "other", "step")])
    with pytest.raises(ReplayMismatch):
        await run_once(dag_of(body), host)
    assert len(host.journal) == 1


@pytest.mark.parametrize("then", ["return", "wait", "raise"])
async def test_an_entry_that_nobody_came_to_is_a_mismatch(then):
    async def body(ctx: Context):
        await ctx.step("a", print)
        if then == "wait":
            await ctx.sleep(1)
        if then == "raise":
            raise OSError

    host = RecordingHost([JournalEntry("0", "a", "step"), JournalEntry("~b~0", "b", "step")])
    expected = OSError if then == "raise" else ReplayMismatch
    with pytest.raises(expected):
        await run_once(dag_of(body), host)


async def test_what_is_beside_has_time_to_come_to_its_steps():
    async def branch(ctx, name):
        one = await ctx.step("one", str, name)
        return await ctx.step("two", str, one)

    async def body(ctx: Context):
        async with anyio.create_task_group() as group:
            for name in "ab":
                group.start_soon(branch, ctx, name)
            await anyio.lowlevel.checkpoint()
        await ctx.sleep(1)
        return "done"

    host = RecordingHost()
    assert await run_through(dag_of(body), host=host) == "done"
    assert len(host.journal) == 5


async def test_steps_side_by_side_keep_their_values_whatever_their_order():
    rounds = {"a": 5, "b": 0}

    async def load(name):
        for _ in range(rounds[name]):
            await asyncio.sleep(0)
        return name

    async def branch(ctx, name):
        loaded = await ctx.step("load", load, name)
        return await ctx.step("store", str.upper, loaded)

    async def body(ctx: Context):
        found = await asyncio.gather(branch(ctx, "a"), branch(ctx, "b"))
        await ctx.sleep(1)
        return found

    host = RecordingHost()
    assert await run_through(dag_of(body), host=host) == ["A", "B"]
    assert host.journal[0].value == b"\xa1b"


@pytest.mark.parametrize("how", ["swallow", "replace", "group", "finally", "return"])
async def test_a_deferral_stands_whatever_the_function_makes_of_it(how):
    ended = []

    async def body(ctx: Context):
        try:
            if how == "group":
                async with asyncio.TaskGroup():
                    await ctx.sleep(1)
            await ctx.sleep(1)
        except BaseException:
            if how == "swallow":
                await ctx.step("more", ended.append, 1)
            if how == "replace":
                raise ValueError("mine") from None
            if how != "return":
                raise
        finally:
            await asyncio.sleep(0)
            ended.append(how)

    host = RecordingHost()
    with pytest.raises(TaskDeferred) as deferred:
        await run_once(dag_of(body), host)
    assert waiting_of(deferred).label == "sleep"
    assert ended == [how]
    told = {"replace": "raised ValueError: mine", "return": "function returned"}.get(how)
    assert [told in line for line in host.logged] == ([True] if told else [])


async def test_nothing_is_published_after_a_deferral():
    async def body(ctx: Context):
        try:
            await ctx.sleep(1)
        finally:
            await ctx.publish(ORDERS)

    host = RecordingHost()
    with pytest.raises(TaskDeferred):
        await run_once(dag_of(body, outlets=[ORDERS]), host)
    assert host.published == []


async def test_a_step_in_flight_when_the_task_waits_is_not_recorded():
    go = anyio.Event()

    async def slow():
        await go.wait()
        return 1

    async def body(ctx: Context):
        beside = asyncio.ensure_future(ctx.step("slow", slow))
        await asyncio.sleep(0)
        try:
            await ctx.sleep(1)
        finally:
            go.set()
            with pytest.raises(TaskDeferred):
                await beside

    host = RecordingHost()
    with pytest.raises(TaskDeferred):
        await run_once(dag_of(body), host)
    assert host.journal == []


async def test_a_lost_task_ends():
    async def body(ctx: Context):
        try:
            await ctx.step("a", print)
        except BaseException:  # noqa: BLE001
            await ctx.step("b", print)

    host = RecordingHost()
    host.error = LeaseLost("handed out anew")
    with pytest.raises(TaskLost, match="handed out anew"):
        await run_once(dag_of(body), host)


async def test_what_could_not_be_recorded_ends_the_attempt():
    async def body(ctx: Context):
        try:
            await ctx.step("a", print)
        except Unavailable:
            return "went on"

    host = RecordingHost()
    host.error = Unavailable("no manager answers")
    with pytest.raises(Unavailable):
        await run_once(dag_of(body), host)


async def test_who_is_second_gets_what_the_first_recorded():
    class Twin(RecordingHost):
        async def record(self, step):
            return JournalEntry(step.key, step.label, "step", b"\xa5first")

    assert await run_once(dag_of(lambda_of("a", lambda: "second")), Twin()) == "first"


async def test_time_passed_is_no_payload():
    async def body(ctx: Context):
        return await ctx.first(timedelta(seconds=1)), await ctx.sleep(datetime.now(UTC).second)

    first, slept = await run_through(dag_of(body))
    assert (first.index, first.event, slept) == (0, TriggerEvent(None, "id0"), None)
