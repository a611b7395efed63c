import functools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest

from pubsubflow import (
    DAG,
    BashOperator,
    Cron,
    Dataset,
    EmptyOperator,
    Every,
    Operator,
    PythonOperator,
    TriggerRule,
    chain,
    dag,
    setup,
    task,
    task_group,
    teardown,
)
from pubsubflow.authoring.registry import loading
from pubsubflow.errors import DefinitionError
from pubsubflow.model.schedule import timetable
from pubsubflow.model.schedule.conditions import AllOf, AnyOf, DatasetInput, ScheduleSpec, Tick
from pubsubflow.model.source.elements import digest_elements
from pubsubflow.model.spec import DagSpec, DatasetSpec, MappedArgument, RetryPolicy

a, b, c, d = (Dataset(f"s3://lake/{name}") for name in "abcd")

NAIVE = datetime.fromisoformat("2026-01-01T00:00")


@task
def one() -> int:
    return 1


@task
def add(x, y=0):
    return x + y


def spec_of(made: DAG) -> DagSpec:
    spec = made.to_spec("test_definition.py", "hash")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=DagSpec) == spec
    return spec


def edges(made: DAG) -> dict[str, set[str]]:
    spec = spec_of(made)
    return {t.task_id: {spec.tasks[n].task_id for n in t.upstream} for t in spec.tasks}


def test_a_dataset_is_its_normalised_uri():
    dataset = Dataset("S3://Lake/Orders/#x", name="orders", group="raw", extra={"owner": "me"})
    assert dataset == Dataset("s3://lake/Orders")
    assert len({dataset, Dataset("s3://lake/Orders")}) == 1
    assert dataset.to_spec() == DatasetSpec(
        "s3://lake/Orders", name="orders", group="raw", extra={"owner": "me"}
    )


@pytest.mark.parametrize("value", [None, 7, ["s3://lake/orders"], b"s3://lake/orders"])
def test_a_dataset_is_declared_by_a_text(value):
    for declare in (Dataset, Dataset.match):
        with pytest.raises(DefinitionError, match="needs a URI"):
            declare(value)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (a, DatasetInput(0, a.uri)),
        ([a], DatasetInput(0, a.uri)),
        (a & b, AllOf((DatasetInput(0, a.uri), DatasetInput(1, b.uri)))),
        ([a, b], AllOf((DatasetInput(0, a.uri), DatasetInput(1, b.uri)))),
        (a | b, AnyOf((DatasetInput(0, a.uri), DatasetInput(1, b.uri)))),
        (
            a & b & c,
            AllOf((DatasetInput(0, a.uri), DatasetInput(1, b.uri), DatasetInput(2, c.uri))),
        ),
        (
            (a & b) | c,
            AnyOf(
                (AllOf((DatasetInput(0, a.uri), DatasetInput(1, b.uri))), DatasetInput(2, c.uri))
            ),
        ),
        (
            (a & b) | (a & c),
            AnyOf(
                (
                    AllOf((DatasetInput(0, a.uri), DatasetInput(1, b.uri))),
                    AllOf((DatasetInput(2, a.uri), DatasetInput(3, c.uri))),
                )
            ),
        ),
        (
            [a | b, c],
            AllOf(
                (AnyOf((DatasetInput(0, a.uri), DatasetInput(1, b.uri))), DatasetInput(2, c.uri))
            ),
        ),
        (
            [a, b] | c,
            AnyOf(
                (AllOf((DatasetInput(0, a.uri), DatasetInput(1, b.uri))), DatasetInput(2, c.uri))
            ),
        ),
        (
            a & [b, c],
            AllOf((DatasetInput(0, a.uri), DatasetInput(1, b.uri), DatasetInput(2, c.uri))),
        ),
        (None, None),
    ],
)
def test_schedules_over_datasets_become_conditions(schedule, expected):
    whole = None if expected is None else ScheduleSpec(expected)
    assert spec_of(DAG("x", schedule=schedule)).schedule == whole


def test_schedules_over_time_become_ticks():
    cron = spec_of(DAG("x", schedule=Cron("0 16 * * *", tz="Europe/Warsaw")))
    assert cron.schedule == ScheduleSpec(Tick(0, timetable.CronSpec("0 16 * * *", "Europe/Warsaw")))
    every = spec_of(DAG("x", schedule=Every(timedelta(minutes=5))))
    assert every.schedule == ScheduleSpec(Tick(0, timetable.IntervalSpec(300)))


def test_bounds_without_a_zone_are_in_that_of_the_cron():
    bounds = {"start": NAIVE, "end": datetime(2026, 2, 1, tzinfo=UTC)}
    spec = spec_of(DAG("x", schedule=Cron("0 16 * * *", tz="Europe/Warsaw"), **bounds))
    assert spec.start == datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Warsaw"))
    assert spec.end == datetime(2026, 2, 1, tzinfo=UTC)
    assert spec_of(DAG("x", schedule=Every(5), **bounds)).start == datetime(2026, 1, 1, tzinfo=UTC)


def test_all_that_a_dag_says_is_in_its_spec():
    made = DAG(
        "x",
        catchup=True,
        params={"day": "2026-11-20", "depth": (1, 2)},
        max_active_runs=3,
        max_active_tasks=7,
        timeout=timedelta(hours=1),
        tags=["nightly", "raw"],
        owner="data",
        description="what it does",
        on_pause="drop",
        on_success=print,
    )
    assert made.on_success == (print,)
    assert spec_of(made) == DagSpec(
        dag_id="x",
        file="test_definition.py",
        source="hash",
        tasks=(),
        catchup=True,
        params={"day": "2026-11-20", "depth": [1, 2]},
        max_active_runs=3,
        max_active_tasks=7,
        timeout_seconds=3600.0,
        tags=("nightly", "raw"),
        owner="data",
        description="what it does",
        on_pause="drop",
        line=made.location.line,
        callbacks={"on_success": ("print",)},
    )


def test_params_may_be_a_struct_type():
    class Params(msgspec.Struct):
        day: str
        limit: int = 10

    spec = spec_of(DAG("x", params=Params))
    assert spec.params == {"limit": 10}
    assert spec.params_schema["$defs"]["Params"]["required"] == ["day"]


def test_all_that_a_task_says_is_in_its_spec():
    with DAG("x", default_args={"retries": 1, "pool": "small"}) as made:

        @task(
            task_id="load",
            outlets=[a, "S3://lake/B/"],
            inlets=c,
            retries=3,
            retry_delay=timedelta(seconds=5),
            retry_backoff=2,
            max_retry_delay=60,
            retry_jitter=0.5,
            timeout=90,
            trigger_rule="all_done",
            queue="heavy",
            priority=-2,
            concurrency_key="k",
            executor="local",
            on_failure=print,
        )
        async def function():
            """Load it."""

        function()
    spec = spec_of(made).tasks[0]
    assert spec.task_id == "load"
    assert spec.kind == "async"
    assert spec.retry == RetryPolicy(3, 5.0, 2.0, 60.0, 0.5)
    assert (spec.timeout_seconds, spec.trigger_rule) == (90.0, TriggerRule.ALL_DONE)
    assert (spec.outlets, spec.inlets) == ((a.uri, "s3://lake/B"), (c.uri,))
    assert (spec.queue, spec.pool, spec.priority) == ("heavy", "small", -2)
    assert (spec.concurrency_key, spec.doc, spec.role) == ("k", "Load it.", "task")
    assert made.nodes["load"].options.on_failure == (print,)


@pytest.mark.parametrize("rule", list(TriggerRule))
def test_every_trigger_rule_is_accepted_by_name(rule):
    with DAG("x") as made:
        one.override(trigger_rule=str(rule))()
    assert spec_of(made).tasks[0].trigger_rule is rule


def test_the_decorator_builds_where_it_stands_and_calling_gives_the_same_dag():
    with loading("file") as collected:

        @dag(schedule=a)
        def flow():
            """First line.

            More.
            """
            one()

        @dag
        def plain():
            one()

        @dag("other_id")
        def named(retries=3):
            one()

    assert flow() is flow
    assert list(collected.dags) == ["flow", "plain", "other_id"]
    assert flow.dag_id == "flow"
    assert spec_of(flow).description == "First line."


def test_what_a_file_makes_belongs_to_it_alone():
    with loading("one") as first:
        for number in range(3):
            DAG(f"d{number}")
        Dataset("s3://x")
    with loading("two") as second:
        DAG("d0")
    DAG("nowhere")
    assert list(first.dags) == ["d0", "d1", "d2"]
    assert [dataset.uri for dataset in first.datasets] == ["s3://x"]
    assert list(second.dags) == ["d0"]


def test_references_are_dependencies_wherever_they_stand():
    with DAG("x") as made:
        x, y, z = one(), one.override(task_id="two")(), one.override(task_id="three")()
        nested = add([x, {"k": (y["part"],)}], y=z)
        add.override(task_id="last")(nested)
    assert edges(made) == {
        "one": set(),
        "two": set(),
        "three": set(),
        "add": {"one", "two", "three"},
        "last": {"add"},
    }
    spec = spec_of(made)
    assert [task.inputs for task in spec.tasks] == [task.upstream for task in spec.tasks]


def test_arrows_and_chain_order_tasks():
    with DAG("x") as made:
        t = [EmptyOperator(task_id=f"t{number}") for number in range(9)]
        t[0] >> [t[1], t[2]] >> t[3]
        t[5] << t[4] << t[3]
        [t[1], t[2]] << t[8]
        chain(t[5], [t[6], t[7]])
    assert edges(made) == {
        "t0": set(),
        "t1": {"t0", "t8"},
        "t2": {"t0", "t8"},
        "t3": {"t1", "t2"},
        "t4": {"t3"},
        "t5": {"t4"},
        "t6": {"t5"},
        "t7": {"t5"},
        "t8": set(),
    }
    assert {t.kind for t in spec_of(made).tasks} == {"empty"}


def test_chain_joins_lists_of_one_length_pairwise():
    with DAG("x") as made:
        t = [EmptyOperator(task_id=f"t{number}") for number in range(4)]
        chain([t[0], t[1]], [t[2], t[3]])
    assert edges(made) == {"t0": set(), "t1": set(), "t2": {"t0"}, "t3": {"t1"}}


def test_calling_a_task_again_numbers_it():
    with DAG("x") as made:
        one()
        one()
        for _ in range(2):

            @task
            def inner(): ...

            inner()
    assert list(made.nodes) == ["one", "one__1", "inner", "inner__1"]


def test_mapping_over_lists_and_results():
    with DAG("x") as made:
        numbers = one()
        add.partial(y=numbers).expand(x=[1, numbers, 3])
        add.override(task_id="product").expand(x=[1, 2], y=numbers)
        add.override(task_id="rows").expand_kwargs([{"x": 1}, {"x": 2, "y": 3}])
        add.override(task_id="late").expand_kwargs(numbers)
    factors = {task.task_id: task.mapped_arguments for task in spec_of(made).tasks}
    assert factors == {
        "one": (),
        "add": (MappedArgument("x", length=3),),
        "product": (
            MappedArgument("x", length=2, elements=digest_elements([1, 2])),
            MappedArgument("y", node=0),
        ),
        "rows": (
            MappedArgument("", length=2, elements=digest_elements([{"x": 1}, {"x": 2, "y": 3}])),
        ),
        "late": (MappedArgument("", node=0),),
    }
    inputs = {task.task_id: (task.inputs, task.upstream) for task in spec_of(made).tasks}
    assert inputs["add"] == ((0,), (0,))
    assert inputs["product"] == ((), (0,))


def test_roles():
    with DAG("x") as made:

        @task.branch
        def choose(): ...

        @task.short_circuit(retries=2)
        def stop(): ...

        @task.bash
        def command():
            return "true"

        @setup
        def before(): ...

        @teardown
        @task(retries=1)
        def after(): ...

        before() >> choose() >> [stop(), command()] >> after()
    tasks = {task.task_id: task for task in spec_of(made).tasks}
    assert {name: task.role for name, task in tasks.items()} == {
        "before": "setup",
        "choose": "branch",
        "stop": "short_circuit",
        "command": "task",
        "after": "teardown",
    }
    assert tasks["after"].trigger_rule is TriggerRule.ALL_DONE_SETUP_SUCCESS
    assert tasks["stop"].retry.retries == 2
    assert tasks["command"].operator == "bash"


def test_groups_prefix_ids_and_can_be_ordered():
    with DAG("x", default_args={"retries": 1}) as made:
        first = one.override(task_id="first")()
        with task_group("outer", default_args={"retries": 2}) as outer:
            x = one()
            with task_group("inner"):
                y = add(x)
            one.override(retries=5)()
        with task_group("flat", prefix_group_id=False):
            one.override(task_id="bare")()
        first >> outer >> EmptyOperator(task_id="last")
    assert y.node.task_id == "outer.inner.add"
    assert edges(made) == {
        "first": set(),
        "outer.one": {"first"},
        "outer.inner.add": {"outer.one"},
        "outer.one__1": {"first"},
        "bare": set(),
        "last": {"outer.inner.add", "outer.one__1"},
    }
    retries = {task.task_id: task.retry.retries for task in spec_of(made).tasks}
    assert (retries["first"], retries["outer.one"], retries["outer.one__1"]) == (1, 2, 5)


def test_a_group_may_be_a_function():
    with DAG("x") as made:

        @task_group
        def load(value):
            return add(one(), value)

        @task_group(group_id="checks")
        def check(value):
            add(value)

        check(load(load(1)))
    assert edges(made) == {
        "load.one": set(),
        "load.add": {"load.one"},
        "load__1.one": set(),
        "load__1.add": {"load__1.one", "load.add"},
        "checks.add": {"load__1.add"},
    }


def test_operators_depend_on_what_their_fields_refer_to():
    class Load(Operator):
        def __init__(self, *, rows, **options):
            super().__init__(**options)
            self.rows = {"rows": [rows]}

        async def execute(self, ctx): ...

    with DAG("x") as made:
        x = one()
        load = Load(task_id="load", rows=x, retries=2, outlets=[a])
        call = PythonOperator(task_id="call", python_callable=len, op_args=[load.output])
        call >> BashOperator(task_id="bash", bash_command="true")
    assert edges(made) == {"one": set(), "load": {"one"}, "call": {"load"}, "bash": {"call"}}
    tasks = {task.task_id: task for task in spec_of(made).tasks}
    assert (tasks["load"].kind, tasks["load"].operator) == ("async", "Load")
    assert tasks["load"].inputs == (0,)
    assert (tasks["load"].retry.retries, tasks["load"].outlets) == (2, (a.uri,))
    assert tasks["call"].kind == "sync"


def test_the_kind_follows_the_callable():
    async def coroutine(): ...

    class Callable:
        async def __call__(self): ...

    with DAG("x") as made:
        PythonOperator(task_id="async", python_callable=coroutine)
        PythonOperator(task_id="object", python_callable=Callable())
        PythonOperator(task_id="partial", python_callable=functools.partial(coroutine))
        PythonOperator.partial(task_id="mapped", python_callable=coroutine).expand(op_args=[[1]])
        PythonOperator(task_id="sync", python_callable=print)
    kinds = {task.task_id: task.kind for task in spec_of(made).tasks}
    assert kinds == {
        "async": "async",
        "object": "async",
        "partial": "async",
        "mapped": "async",
        "sync": "sync",
    }


def test_lines_are_those_of_the_dag_file():
    with DAG("x") as made:
        x = one()
    spec = spec_of(made)
    assert spec.line == made.location.line
    assert spec.tasks[0].line == x.node.location.line == spec.line + 1
    assert made.to_spec("other.py", "hash").line is None


def test_nested_dags_keep_their_tasks_apart():
    with DAG("outer") as outer:
        one()
        with DAG("inner") as inner:
            one()
        add(1)
    assert (list(outer.nodes), list(inner.nodes)) == (["one", "add"], ["one"])
