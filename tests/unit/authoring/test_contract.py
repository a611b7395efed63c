"""What users type for DAGs keeps working: the words of docs/contributing/contract.md."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

import pubsubflow
from pubsubflow import (
    DAG,
    BashOperator,
    Context,
    Cron,
    Dataset,
    DefinitionError,
    EmptyOperator,
    Every,
    Fail,
    Operator,
    Param,
    Poked,
    PythonOperator,
    RateLimit,
    Resources,
    Retry,
    RetryAfter,
    Skip,
    batch,
    current_context,
    dag,
    debounce,
    each,
    identity,
    latest,
    partitioned,
    task,
    task_group,
)
from pubsubflow.kubernetes import Pod
from pubsubflow.testing import event, simulate

ROOT = Path(__file__).parents[3]
A, B, C, D = (Dataset(f"s3://lake/{name}") for name in "abcd")
HOUR = timedelta(hours=1)


def test_a_dataset_is_its_uri_normalised():
    made = Dataset("S3://LAKE/orders/#part", name="n", group="g", extra={"a": 1})
    assert made.uri == "s3://lake/orders"
    for bad in ("", "no scheme", "s3://" + "a" * 1600):
        with pytest.raises(DefinitionError):
            Dataset(bad)


def test_a_dag_takes_its_keywords():
    made = DAG(
        "all",
        schedule=A,
        start=datetime(2026, 1, 1, tzinfo=UTC),
        end=datetime(2027, 1, 1, tzinfo=UTC),
        catchup=True,
        params={"a": 1},
        default_args={"retries": 2},
        max_active_runs=3,
        max_active_tasks=4,
        timeout=HOUR,
        tags=["x"],
        owner="me",
        description="d",
        on_success=print,
        on_failure=[print],
        on_pause="hold",
        priority=3,
    )
    with made:
        EmptyOperator(task_id="x")
    spec = made.to_spec("", "")
    assert (spec.tasks[0].retry.retries, spec.max_active_runs, spec.owner) == (2, 3, "me")


def test_a_task_takes_its_keywords():
    with DAG("keywords", params={"tenant": "a"}) as made:

        @task(
            task_id="t",
            outlets=[A],
            inlets=[B],
            retries=Retry(3, delay=1, backoff=2, jitter=0.1, on=(TimeoutError,), never=(KeyError,)),
            timeout=HOUR,
            trigger_rule="all_done",
            pool="p",
            pool_slots=2,
            priority=1,
            concurrency_key="{{ params.tenant }}",
            concurrency_limit=1,
            rate_limit=RateLimit("crm", 100, per=timedelta(minutes=1)),
            resources=Resources(memory="2GiB", cpu=1.5),
            executor="local",
            depends_on_past=True,
            on_success=print,
            on_failure=print,
            on_retry=[print],
            on_skipped=print,
            doc="d",
        )
        def function(): ...

        function()

        @task(retry_delay=HOUR, retry_backoff=2, max_retry_delay=HOUR, retry_jitter=0.1, retries=1)
        def other(): ...

        other()
        EmptyOperator(task_id="past", wait_for_downstream=True, execution_timeout=HOUR)
    assert made.to_spec("", "").tasks[0].doc == "d"


def test_a_pod_takes_its_keywords():
    pod = Pod(
        image="acme/train:7",
        resources={"requests": {"cpu": "500m"}, "limits": {"nvidia.com/gpu": 1}},
        template={"spec": {"tolerations": [{"key": "gpu", "operator": "Exists"}]}},
        namespace="jobs",
        service_account="trainer",
        node_selector={"gpu": "a100"},
    )
    with DAG("engines", executor="kubernetes") as made:
        task(task_id="usual")(print)()
        task(task_id="own", executor=pod)(print)()
        task(task_id="here", executor="local")(print)()
    usual, own, here = made.to_spec("f.py", "").tasks
    assert (usual.executor.name, here.executor.name) == ("kubernetes", "local")
    assert msgspec.convert(own.executor.options, Pod) == pod


def test_calling_a_decorated_dag_is_allowed():
    @dag
    def decorated():
        EmptyOperator(task_id="x")

    assert decorated() is decorated
    assert decorated.dag_id == "decorated"


def test_params_are_arguments_structs_or_mappings():
    class Typed(msgspec.Struct):
        day: str
        rows: int = 3

    with DAG("typed", params=Typed) as typed:
        PythonOperator(task_id="rows", python_callable=lambda ctx: ctx.run.params.rows)
        BashOperator(task_id="day", bash_command="echo {{ ctx.run.params.day | sh }}")
    assert typed.test(params={"day": "x"}).result("day") == "x"
    shaped = Param("2026-01-01", format="date", description="d")
    with DAG("shaped", params={"day": shaped, "n": Param(1, minimum=0, enum=[1, 2])}) as dag:
        EmptyOperator(task_id="x")
    for wrong in ({"day": "soon"}, {"n": 3}):
        with pytest.raises(pubsubflow.PubsubflowError, match=next(iter(wrong))):
            dag.test(params=wrong)


RULES = (
    "all_success all_failed all_done one_success one_failed none_failed always "
    "none_failed_min_one_success all_skipped none_skipped one_done all_done_min_one_success "
    "all_done_setup_success"
)


@pytest.mark.parametrize("rule", RULES.split())
def test_a_trigger_rule_has_its_name(rule):
    with DAG("rule"):
        EmptyOperator(task_id="x", trigger_rule=rule)


@pytest.mark.parametrize(
    "schedule",
    [
        A & B, [A, B], A | B, (A & B) | C, A.at_least(3), A.within(12 * HOUR) & B,
        A.where("event.extra.rows > 0"), each(A & B), batch(A, max_events=9, linger=HOUR),
        debounce(A, quiet=HOUR, max_wait=2 * HOUR), latest(A), partitioned(A & B, by=identity),
        (A & B).or_after(HOUR, then="run"), (A & B).or_after(HOUR, then="skip"),
        Cron("0 16 * * *", tz="Europe/Warsaw"), Every(HOUR), Cron("0 1 * * *") | A,
        Cron("0 1 * * *") & A, None, "@hourly", "@daily", "@weekly", "@monthly", "@yearly",
        "@once", "5 4 * * *", HOUR, Dataset.match("s3://lake/*/orders"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_schedule_is_a_value(schedule):
    with DAG("scheduled", schedule=schedule) as made:
        EmptyOperator(task_id="x")
    assert made.to_spec("", "").dag_id == "scheduled"


@pytest.mark.parametrize(
    ("schedule", "fires"),
    [((A | B) & (C | D), ["abc"]), ((A & B) | (A & C), ["ab", "ac"])],
)
def test_what_a_firing_consumes(schedule, fires):
    with DAG("consuming", schedule=schedule) as made:
        EmptyOperator(task_id="x")
    runs = simulate(made, [event(each) for each in (A, B, C)])
    assert ["".join(one.dataset.uri[-1] for one in run.events) for run in runs] == fires


def test_the_context_has_its_names():
    with DAG("context") as made:

        @task(outlets=[A], multiple_outputs=True)
        async def make(ctx: Context):
            run = ctx.run
            assert (run.dag_id, run.kind, run.logical_time) == ("context", "manual", None)
            assert (run.partition, bool(run.run_id), bool(run.cause)) == (None, True, True)
            assert (ctx.task.task_id, ctx.attempt, len(ctx.events)) == ("make", 1, 0)
            assert current_context() is ctx
            ctx.log.info("here", rows=1)
            ctx.progress(1, 2)
            ctx.emit(A, extra={"rows": 2}, partition="p")
            ctx.push("rows", 9)
            ctx.state[A] = 3
            await ctx.sleep(5 * HOUR)
            return {"stepped": await ctx.step("add", lambda x: x + 1, 1)}

        @task
        def take(ctx: Context):
            keys = [ctx.pull("make", key="rows"), ctx.pull("make", "stepped")]
            return [ctx.result("make"), *keys, ctx.state[A], ctx.variable("none", "default")]

        make() >> take()
    result = made.test()
    assert result.state == "success", result
    assert result.result("take") == [{"stepped": 2}, 9, 2, 3, "default"]
    assert [each.partition for each in result.emitted] == ["p"]


def test_retries_and_outcomes_by_exception():
    with DAG("outcomes") as made:

        @task(retries=2)
        def again(ctx: Context):
            if ctx.attempt == 1:
                raise RetryAfter(3 * HOUR)

        @task
        def skips():
            raise Skip("why")

        @task(retries=2)
        def fails():
            raise Fail("why")

        again(), skips(), fails()
    result = made.test()
    assert [str(state.value) for state in result.states.values()] == [
        "success", "skipped", "failed"
    ]  # fmt: skip
    assert len(result.tasks["fails"]) == 1


def test_mapping_takes_dicts_parts_zip_map_and_concat():
    with DAG("mapped") as made:

        @task
        def source():
            return {"files": [1, 2], "by": {"x": 1, "y": 2}}

        @task
        def numbers():
            return [1, 2]

        @task
        def show(value):
            return value

        @task
        def total(values):
            return list(values)

        found, some = source(), numbers()
        for values in (
            *(found["files"], some.map(lambda each: each * 2), some.zip(some), some.concat([5])),
        ):
            total(show.expand(value=values))
        show.partial().expand_kwargs([{"value": 1}])
    result = made.test()
    totals = [result.result(name) for name in result.tasks if name.startswith("total")]
    assert totals == [[1, 2], [2, 4], [[1, 1], [2, 2]], [1, 2, 5]]


def test_a_sensor_looks_and_holds_no_slot():
    looks = []
    with DAG("looking") as made:

        @task.sensor(every=timedelta(seconds=5), timeout=HOUR, soft_fail=False)
        def look():
            looks.append(1)
            return Poked(len(looks) > 2, "there")

        look()
    assert made.test().result("look") == "there"


def test_operators_render_and_get_the_names_of_airflow():
    names = [
        "ctx",
        "run",
        "dag",
        "task",
        "params",
        "ds",
        "ds_nodash",
        "ts",
        "logical_date",
        "data_interval_start",
        "data_interval_end",
        "prev_data_interval_end",
        "run_id",
        "ti",
        "macros",
        "var",
        "conn",
        "events",
    ]

    class Shout(Operator):
        template_fields = ("text",)

        def __init__(self, *, text, **options):
            self.text = text
            super().__init__(**options)

        async def execute(self, ctx):
            return f"{self.text}!{ctx.attempt}"

    with DAG("rendered", params={"day": "d"}) as made:
        first = PythonOperator(
            task_id="first",
            python_callable=lambda **context: sorted(set(names) - context.keys()),
        )
        first >> Shout(task_id="shout", text="{{ ctx.run.params.day }}{{ ctx.result('first') }}")
        BashOperator(task_id="all", bash_command=f"echo {'{{ 1 }} ' * 2}", dag=made)
    result = made.test()
    assert result.result("first") == []
    assert result.result("shout") == "d[]!1"


def test_a_selection_takes_neighbours():
    with DAG("selected") as made:
        a, report, c, _ = (EmptyOperator(task_id=name) for name in ("a", "report", "c", "other"))
        a >> report >> c
    assert sorted(made.test(select="*report+").states) == ["a", "c", "report"]


def test_groups_setups_and_branches_are_there():
    with DAG("grouped") as made:

        @task.branch
        def choose():
            return "extract"

        with task_group("extract") as extract:
            EmptyOperator(task_id="inner")
        other = EmptyOperator(task_id="other")
        choose() >> [extract, other]
    assert made.test().states["extract.inner"] == "success"
    assert made.test().states["other"] == "skipped"


def test_every_test_that_the_page_names_is_there():
    page = (ROOT / "docs" / "contributing" / "contract.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page)
    assert len(named) > 30
    missing = [
        (file, name)
        for file, name in named
        if not (ROOT / file).is_file() or f"def {name}" not in (ROOT / file).read_text()
    ]
    assert missing == []
