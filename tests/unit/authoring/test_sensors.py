"""What begins with a wait: @task.sensor, Operator.start_trigger, Dataset(watch=)."""

from datetime import timedelta

import pytest
from psf_waiting_triggers import Answer, Pause

from pubsubflow import (
    DAG,
    Context,
    Dataset,
    DefinitionError,
    EmptyOperator,
    Operator,
    PythonOperator,
    Trigger,
    task,
)
from pubsubflow.authoring.tasks.sensors import is_empty
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.wire.waits import START, Wait
from pubsubflow.plugins import decode_trigger

ORDERS = Dataset("s3://lake/orders")


class Unknown(Trigger, frozen=True):
    pass


def spec_of(make, *args, **kwargs):
    """Return the spec of the last task that a function makes."""
    with DAG("d") as dag:
        make(*args, **kwargs)
    return dag.to_spec("d.py", "").tasks[-1]


def sensor(wanted, body=None, **options):
    def arrived(event): ...

    return spec_of(task.sensor(wanted, **options)(body or arrived))


def test_a_sensor_with_nothing_in_it_has_nothing_to_run():
    found = sensor(Answer(payload=5), timeout=60, retries=2, outlets=[ORDERS])
    assert (found.kind, found.operator, found.timeout_seconds) == ("empty", "sensor", None)
    assert (found.start_wait.key, found.start_wait.label, found.start_wait.timeout_seconds) == (
        START,
        "test.Answer",
        60,
    )
    (wait,) = found.start_wait.waits
    assert decode_trigger(wait.name, wait.data) == Answer(payload=5)
    assert (found.retry.retries, found.outlets) == (2, (ORDERS.uri,))


@pytest.mark.parametrize(
    ("wanted", "wait"),
    [
        (timedelta(minutes=1), Wait("time", "sleep", delay_seconds=60)),
        (Pause(length=timedelta(hours=1)), Wait("time", "test.Pause", delay_seconds=3600)),
        (ORDERS, Wait("event", ORDERS.uri)),
        (
            Dataset.match("s3://lake/*").where("event.extra.n > 1"),
            Wait("event", "s3://lake/*", pattern=True, where="event.extra.n > 1"),
        ),
        ("s3://lake/rates", Wait("event", "s3://lake/rates")),
    ],
)
def test_times_count_from_when_the_task_could_start(wanted, wait):
    assert sensor(wanted).start_wait.waits == (wait,)


def plain(event):
    return event.payload


async def asynchronous(event, ctx: Context):
    return ctx, event


def test_a_sensor_with_a_body_runs_where_its_function_can():
    assert sensor(Answer(), plain).kind == "sync"
    assert sensor(Answer(), asynchronous).kind == "async"
    assert sensor(Answer(), asynchronous).start_wait is not None


def at_run_time(ctx):
    return Answer(payload=ctx.run.run_id)


def with_path(ctx, path):
    return Answer(payload=(ctx.run.run_id, path))


@pytest.mark.parametrize("body", [asynchronous, None])
def test_what_is_made_at_run_time_is_waited_for_on_a_worker(body):
    found = sensor(at_run_time, body)
    assert (found.kind, found.start_wait) == ("async", None)


def test_a_plain_function_cannot_wait_for_what_is_made_at_run_time():
    with pytest.raises(DefinitionError, match="as `async def`"):
        sensor(at_run_time, plain)


def test_a_trigger_may_hold_another_tasks_result():
    def make():
        @task
        def path():
            return "x"

        @task.sensor(Answer(payload=path()))
        def arrived(event): ...

        arrived()

    found = spec_of(make)
    assert (found.kind, found.start_wait, found.upstream, found.inputs) == (
        "async",
        None,
        (0,),
        (0,),
    )


def test_arguments_are_those_behind_the_event():
    def make(*args, **kwargs):
        @task.sensor(Answer())
        async def arrived(event, day, hour=1): ...

        @task.sensor(Answer())
        async def later(event, day, hour=1):
            return day

        later(*args, **kwargs)

    assert spec_of(make, "monday").kind == "async"
    for args, kwargs in (((), {}), (("monday", 1, 2), {}), ((), {"event": 1, "day": 2})):
        with pytest.raises(DefinitionError, match=r"later\(\)"):
            spec_of(make, *args, **kwargs)


def test_a_function_that_makes_the_trigger_may_take_arguments():
    def make():
        @task.sensor(with_path)
        def arrived(path): ...

        arrived.expand(path=["a", "b"])

    assert spec_of(make).mapped_arguments[0].length == 2
    with pytest.raises(DefinitionError, match=r"needs an argument 'path', which asynchronous\(\)"):
        task.sensor(with_path)(asynchronous)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: task.sensor(Unknown())(plain), "not registered"),
        (lambda: task.sensor(Answer)(plain), "call it"),
        (lambda: task.sensor(5)(plain), "@task.sensor takes triggers, timedeltas and datasets"),
        (lambda: task.sensor(ORDERS.at_least(2))(plain), "waits for one event"),
        (lambda: task.sensor(Answer(), timeout=-1)(plain), "timeout=-1"),
        (lambda: task.sensor(Answer(), retires=1)(plain), "did you mean 'retries'"),
        (task.sensor(plain), "give the sensor a trigger"),
    ],
)
def test_sensors_mistakes_are_named(make, text):
    with pytest.raises(DefinitionError, match=text):
        make()


def test_options_may_be_changed():
    found = spec_of(task.sensor(Answer())(plain).override(task_id="other"))
    assert (found.task_id, found.start_wait.label) == ("other", "test.Answer")


class Waits(Operator):
    start_trigger = Answer(payload=1)


class WaitsAndWorks(Waits):
    def execute(self, ctx):
        return ctx.trigger_event


class Computes(Operator):
    template_fields = ("path",)

    def __init__(self, path, **kwargs):
        super().__init__(**kwargs)
        self.path = path

    @property
    def start_trigger(self):
        return Answer(payload=self.path)


class Own(Operator):
    def __init__(self, wanted, **kwargs):
        super().__init__(**kwargs)
        self.start_trigger = wanted

    async def execute(self, ctx):
        return ctx.trigger_event


def test_operators_may_begin_with_a_wait():
    found = spec_of(lambda: Waits(task_id="w", timeout=5))
    assert (found.kind, found.start_wait.timeout_seconds, found.timeout_seconds) == (
        "empty",
        5,
        None,
    )
    found = spec_of(lambda: WaitsAndWorks(task_id="w"))
    assert (found.kind, found.start_wait.label) == ("sync", "test.Answer")
    found = spec_of(lambda: Computes("x", task_id="w"))
    assert (found.kind, found.start_wait.label) == ("empty", "test.Answer")
    assert spec_of(lambda: Own(ORDERS, task_id="w")).start_wait.waits[0].name == ORDERS.uri
    assert spec_of(lambda: Own(None, task_id="w")).start_wait is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: Computes("{{ run.params.x }}", task_id="w"),
        lambda: Computes(task(task_id="up")(plain)(1), task_id="w"),
        lambda: Own(Answer(payload="{{ run.params.x }}"), task_id="w"),
        lambda: Own(Answer(payload=task(task_id="up")(plain)(1)), task_id="w"),
        lambda: Computes.partial(task_id="w").expand(path=["a", "b"]),
    ],
)
def test_what_depends_on_the_run_is_waited_for_on_a_worker(make):
    found = spec_of(make)
    assert (found.kind, found.start_wait) == ("async", None)


def test_a_mapped_operator_begins_with_its_classs_wait():
    class Each(Waits):
        def __init__(self, n, **kwargs):
            super().__init__(**kwargs)
            self.n = n

    found = spec_of(lambda: Each.partial(task_id="w").expand(n=[1, 2]))
    assert (found.kind, found.start_wait.label, found.mapped_arguments[0].length) == (
        "empty",
        "test.Answer",
        2,
    )


def test_operators_mistakes_are_named():
    class Nothing(Operator):
        pass

    class Plain(Computes):
        def execute(self, ctx):
            return ctx

    class Bad(Operator):
        @property
        def start_trigger(self):
            raise OSError("no disk")

    for make, text in (
        (lambda: Nothing(task_id="w"), r"needs a method execute"),
        (lambda: Nothing.partial(task_id="w").expand(), r"needs a method execute|expand"),
        (lambda: Plain("{{ x }}", task_id="w"), "write its execute as `async def`"),
        (lambda: Bad(task_id="w"), "Bad.start_trigger raises OSError: no disk"),
        (lambda: Own(Unknown(), task_id="w"), "Own.start_trigger: Unknown.*not registered"),
    ):
        with pytest.raises(DefinitionError, match=text):
            spec_of(make)


def test_operators_without_a_wait_are_as_before():
    assert spec_of(lambda: EmptyOperator(task_id="e")).kind == "empty"
    assert spec_of(lambda: PythonOperator(task_id="p", python_callable=plain)).kind == "sync"


def test_nobody_goes_straight_on_with_a_task_that_waits_first():
    with DAG("d") as dag:
        one = task(task_id="one")(asynchronous)(1)
        one >> Own(Answer(), task_id="w")
    assert Plan(dag.to_spec("", "")).chains == ((), ())


def test_a_dataset_may_be_watched():
    watched = Dataset("s3://lake/watched", watch=Answer(payload=3)).to_spec()
    assert decode_trigger(watched.watch_name, watched.watch_data) == Answer(payload=3)
    assert (ORDERS.to_spec().watch_name, ORDERS.to_spec().watch_data) == (None, b"")
    with pytest.raises(DefinitionError, match=r"watch: Unknown: .*not registered"):
        Dataset("s3://lake/x", watch=Unknown())
    with pytest.raises(DefinitionError, match="watch takes a trigger, not 5"):
        Dataset("s3://lake/x", watch=5)


NOTHING = (
    "def f(event): ...",
    "def f(event): pass",
    "def f(event): return None",
    "def f():\n    'Say.'",
    "def f(event, *more):\n    'Say.'\n    ...",
    "async def f(event): ...",
    "async def f(event):\n    'Say.'",
)
SOMETHING = (
    "def f(event): return 1",
    "def f(event): return 'text'",
    "def f(event):\n    'Say.'\n    return 'Say.'",
    "def f(event): print()",
    "def f(event): raise OSError",
    "def f(event): event.x",
    "async def f(event): return event",
    "async def f(event): await event",
    "def f(event): yield",
    "f = print",
)


@pytest.mark.parametrize("text", [*NOTHING, *SOMETHING])
def test_nothing_is_told_from_something(text):
    names = {}
    exec(text, names)
    assert is_empty(names["f"]) is (text in NOTHING)
