"""Every mistake in a DAG file raises DefinitionError that names file, line, DAG and task."""

import inspect
from datetime import timedelta

import msgspec
import pytest

from pubsubflow import (
    DAG,
    BashOperator,
    Cron,
    Dataset,
    DefinitionError,
    EmptyOperator,
    Every,
    Operator,
    PythonOperator,
    Resources,
    Retention,
    chain,
    task,
    task_group,
)
from pubsubflow.authoring.registry import loading


@task
def one() -> int:
    return 1


@task
def add(x, y=0):
    return x + y


def circle():
    with DAG("d"):
        a, b, c = (EmptyOperator(task_id=name) for name in "abc")
        a >> b >> c >> a  # here


def circle_of_values():
    with DAG("d"):
        a = one()
        b = add(a)
        b >> a  # here


def itself():
    with DAG("d"):
        a = one()
        a >> a  # here


def twice_dag_id():
    with loading("file"):
        DAG("d")
        DAG("d")  # here


def twice_task_id():
    with DAG("d"):
        EmptyOperator(task_id="a")
        EmptyOperator(task_id="a")  # here


def twice_by_two_functions():
    @task(task_id="a")
    def f(): ...

    @task(task_id="a")
    def g(): ...

    with DAG("d"):
        f()
        g()  # here


def bad_uri():
    Dataset("orders")  # here


def bad_uri_with_password():
    Dataset("s3://me:secret@lake/orders")  # here


def bad_dataset_extra():
    Dataset("s3://a", extra={"x": object()})  # here


def bad_outlet():
    with DAG("d"):
        EmptyOperator(task_id="a", outlets=["no uri"])  # here


def unknown_dag_keyword():
    DAG("d", scedule=None)  # here


def unknown_task_keyword():
    task(retrys=3)(one.function)  # here


def unknown_operator_keyword():
    with DAG("d"):
        BashOperator(task_id="a", bash_command="x", retrys=3)  # here


def unknown_own_operator_keyword():
    class Mine(Operator):
        def __init__(self, *, table="x", **options):
            super().__init__(**options)
            self.table = table

        def execute(self, ctx): ...

    with DAG("d"):
        Mine(task_id="a", tabel="y")  # here


def unknown_default_arg():
    DAG("d", default_args={"retires": 1})  # here


def wrong_type():
    task(retries="three")(one.function)  # here


def wrong_bool():
    task(retries=True)(one.function)  # here


def negative_timeout():
    task(timeout=timedelta(seconds=-1))(one.function)  # here


def wrong_dag_type():
    DAG("d", max_active_runs=0)  # here


def wrong_retention():
    DAG("d", retention=30)  # here


def memory_without_unit():
    Resources(memory="2G")  # here


def no_cpu():
    with DAG("d", default_args={"resources": Resources(cpu=2)}):
        task(resources=Resources(cpu=0))  # here


def empty_resources():
    Resources()  # here


def resources_as_text():
    with DAG("d"):
        EmptyOperator(task_id="a", resources="2GiB")  # here


def empty_retention():
    DAG("d", retention=Retention(count=0))  # here


def wrong_tags():
    DAG("d", tags="nightly")  # here


def unknown_rule():
    task(trigger_rule="all_sucess")(one.function)  # here


def unknown_executor():
    task(executor="spark")(one.function)  # here


def unknown_executor_of_a_dag():
    DAG("d", executor="slurm")  # here


def queue_with_a_dot():
    task(queue="gpu.large")(one.function)  # here


def expand_over_text():
    with DAG("d"):
        add.expand(x="abc")  # here


def expand_twice():
    with DAG("d"):
        add.partial(x=1).expand(x=[1])  # here


def expand_nothing():
    with DAG("d"):
        add.expand()  # here


def expand_unknown():
    with DAG("d"):
        add.expand(z=[1])  # here


def expand_kwargs_not_dicts():
    with DAG("d"):
        add.expand_kwargs([1, 2])  # here


def expand_kwargs_unknown():
    with DAG("d"):
        add.expand_kwargs([{"x": 1, "why": 2}])  # here


def from_another_dag():
    with DAG("c"):
        a = one()
    with DAG("d"):
        add(a)  # here


def order_across_dags():
    with DAG("c"):
        a = one()
    with DAG("d"):
        b = one()
        a >> b  # here


def outside():
    one()  # here


def operator_outside():
    EmptyOperator(task_id="a")  # here


def not_called():
    with DAG("d"):
        add(one)  # here


def operator_as_value():
    with DAG("d"):
        a = EmptyOperator(task_id="a")
        add(a)  # here


def missing_argument():
    with DAG("d"):
        add()  # here


def unknown_argument():
    with DAG("d"):
        add(1, why=1)  # here


def loop_over_result():
    with DAG("d"):
        a = one()
        for _ in a:  # here
            pass


def shift_to_number():
    with DAG("d"):
        one() >> 3  # here


def shift_to_function():
    with DAG("d"):
        one() >> one  # here


def chain_of_unequal():
    with DAG("d"):
        a, b, c, d, e = (EmptyOperator(task_id=name) for name in "abcde")
        chain([a, b], [c, d, e])  # here


def empty_id():
    DAG("")  # here


def bad_id():
    DAG("my dag")  # here


def long_id():
    DAG("x" * 251)  # here


def id_of_wrong_type():
    DAG(7)  # here


def bad_task_id():
    with DAG("d"):
        EmptyOperator(task_id="a b")  # here


def schedule_text():
    DAG("d", schedule="@dayly")  # here


def schedule_uri():
    DAG("d", schedule="s3://lake/a")  # here


def schedule_empty():
    DAG("d", schedule=[])  # here


def schedule_number():
    DAG("d", schedule=5)  # here


def bad_cron():
    Cron("61 * * * *")  # here


def bad_zone():
    Cron("* * * * *", tz="Mars/Base")  # here


def bad_every():
    Every(timedelta(0))  # here


def bad_params():
    DAG("d", params=[1])  # here


def params_not_json():
    DAG("d", params={"x": object()})  # here


def params_without_default():
    class Params(msgspec.Struct):
        day: str

    DAG("d", params=Params, schedule=Every(5))  # here


def generator_task():
    @task  # here
    def f():
        yield 1


def async_bash():
    @task.bash  # here
    async def f():
        return "true"


def operator_without_execute():
    class Mine(Operator): ...

    with DAG("d"):
        Mine(task_id="a")  # here


def operator_without_super():
    class Mine(Operator):
        def __init__(self, task_id):
            self.name = task_id

        def execute(self, ctx): ...

    with DAG("d"):
        Mine(task_id="a")  # here


def template_fields_text():
    class Mine(Operator):
        template_fields = "sql"

        def execute(self, ctx): ...

    with DAG("d"):
        Mine(task_id="a")  # here


def python_operator_without_function():
    with DAG("d"):
        PythonOperator(task_id="a", python_callable=3)  # here


def operator_expand_unknown():
    with DAG("d"):
        BashOperator.partial(task_id="a").expand(comand=["x"])  # here


def group_without_id():
    with DAG("d"), task_group():  # here
        pass


def group_twice():
    with DAG("d"):
        group = task_group("g")
        with group:
            pass
        with group:  # here
            pass


MISTAKES = {
    circle: "cycle: a >> b >> c >> a",
    circle_of_values: "cycle",
    itself: "wait for itself",
    twice_dag_id: "another dag_id",
    twice_task_id: "another task_id",
    twice_by_two_functions: "another task_id",
    bad_uri: "scheme",
    bad_uri_with_password: "password",
    bad_dataset_extra: "extra must be JSON",
    bad_outlet: "white space",
    unknown_dag_keyword: "did you mean 'schedule'?",
    unknown_task_keyword: "did you mean 'retries'?",
    unknown_operator_keyword: "did you mean 'retries'?",
    unknown_own_operator_keyword: "did you mean 'table'?",
    unknown_default_arg: "did you mean 'retries'?",
    wrong_type: "retries='three' must be a whole number",
    wrong_bool: "whole number",
    negative_timeout: "negative",
    wrong_dag_type: "at least 1",
    wrong_retention: "retention=30 must be a timedelta or a Retention",
    empty_retention: "at least 1",
    memory_without_unit: 'memory=\'2G\' must be like "2GiB" or "512MB"',
    no_cpu: "cpu=0 must be above 0",
    empty_resources: "memory=, cpu= or both",
    resources_as_text: 'such as Resources(memory="2GiB", cpu=1.5)',
    wrong_tags: "list of strings",
    unknown_rule: "did you mean 'all_success'?",
    unknown_executor: "'spark' is not installed here (installed: local, bare, dask, kubernetes):",
    unknown_executor_of_a_dag: "'slurm' is not installed here (installed: local, bare, dask, kub",
    queue_with_a_dot: "queue 'gpu.large' may hold letters, digits, '_' and '-' only",
    expand_over_text: "maps over a list",
    expand_twice: "partial() and to expand()",
    expand_nothing: "needs a list",
    expand_unknown: "no argument 'z'",
    expand_kwargs_not_dicts: "takes dicts",
    expand_kwargs_unknown: "no argument 'why'",
    from_another_dag: "belongs to DAG 'c'",
    order_across_dags: "belongs to DAG 'c'",
    outside: "outside of a DAG",
    operator_outside: "outside of a DAG",
    not_called: "pass one(), not one",
    operator_as_value: "pass `.output`",
    missing_argument: "missing a required argument: 'x'",
    unknown_argument: "no argument 'why'",
    loop_over_result: ".expand()",
    shift_to_number: "not a task",
    shift_to_function: "call it: one()",
    chain_of_unequal: "2 and 3",
    empty_id: "must be a string",
    bad_id: "letters, digits",
    long_id: "250",
    id_of_wrong_type: "must be a string",
    bad_task_id: "letters, digits",
    schedule_text: "'@dayly' is unknown; did you mean '@daily'",
    schedule_uri: "write Dataset('s3://lake/a')",
    schedule_empty: "empty list",
    schedule_number: "is not a schedule",
    bad_cron: "bad cron expression",
    bad_zone: "unknown time zone",
    bad_every: "at least 0.1 s",
    bad_params: "params must be a dict",
    params_not_json: "params must be JSON",
    params_without_default: "'day' has no default",
    generator_task: "yield",
    async_bash: "plain `def`",
    operator_without_execute: "execute(self, ctx)",
    operator_without_super: "super().__init__",
    template_fields_text: "('sql',)",
    python_operator_without_function: "must be a function",
    operator_expand_unknown: "did you mean 'bash_command'?",
    group_without_id: "needs an id",
    group_twice: "used twice",
}


def marked_line(function) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if line.endswith("# here\n"))


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda function: function.__name__)
def test_a_mistake_names_its_place_and_remedy(mistake):
    with pytest.raises(DefinitionError) as caught:
        mistake()
    error = caught.value
    assert MISTAKES[mistake] in error.message
    assert (error.file, error.line) == (__file__, marked_line(mistake))
    assert str(error).startswith(f"{__file__}:{error.line}: ")
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    "mistake",
    [
        circle,
        itself,
        twice_dag_id,
        twice_task_id,
        bad_outlet,
        wrong_dag_type,
        schedule_text,
        from_another_dag,
        missing_argument,
        expand_over_text,
        params_not_json,
    ],
    ids=lambda function: function.__name__,
)
def test_a_mistake_inside_a_dag_names_the_dag(mistake):
    with pytest.raises(DefinitionError) as caught:
        mistake()
    assert caught.value.dag_id == "d"


@pytest.mark.parametrize(
    ("mistake", "task_id"),
    [
        (itself, "one"),
        (twice_task_id, "a"),
        (from_another_dag, "add"),
        (missing_argument, "add"),
        (expand_over_text, "add"),
        (operator_without_execute, "a"),
        (unknown_operator_keyword, "a"),
        (bad_outlet, "a"),
    ],
)
def test_a_mistake_in_a_task_names_the_task(mistake, task_id):
    with pytest.raises(DefinitionError) as caught:
        mistake()
    assert caught.value.task_id == task_id
