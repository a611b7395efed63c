"""What people bring from Airflow is understood, or answered with the word that it has here."""

import difflib
import linecache
import re
from datetime import UTC, datetime, timedelta

import pytest

from pubsubflow import (
    DAG,
    BashOperator,
    Cron,
    DefinitionError,
    EmptyOperator,
    Every,
    task,
    task_group,
)
from pubsubflow.authoring.registry import loading

THEIRS = """\
from datetime import datetime, timedelta

from airflow import DAG
from airflow.operators.bash import BashOperator
from airflow.operators.empty import EmptyOperator

default_args = {
    "owner": "data",
    "start_date": datetime(2026, 1, 1),
    "email": ["data@example.org"],
    "email_on_failure": True,
    "depends_on_past": False,
    "retries": 2,
    "retry_delay": timedelta(minutes=5),
    "execution_timeout": timedelta(hours=1),
}

with DAG(
    "hello_dag",
    default_args=default_args,
    description="Says hello",
    schedule_interval="@daily",
    catchup=False,
    tags=["example"],
) as dag:
    begin = EmptyOperator(task_id="begin")
    hello = BashOperator(task_id="hello", bash_command="echo hello {{ run.logical_time }}")
    end = EmptyOperator(task_id="end", trigger_rule="all_done")
    begin >> hello >> end
"""
IMPORTS = "from pubsubflow import DAG, BashOperator, EmptyOperator"
OURS = (
    THEIRS.replace("from airflow import DAG", IMPORTS)
    .replace("from airflow.operators.bash import BashOperator\n", "")
    .replace("from airflow.operators.empty import EmptyOperator\n", "")
    .replace("schedule_interval=", "schedule=")
)  # fmt: skip


def execute(text, name="brought.py"):
    """Execute a text as a DAG file and return its DAGs."""
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    with loading(name) as collected:
        exec(compile(text, name, "exec"), {"__name__": "brought"})
    return collected.dags


def test_a_dag_file_is_ported_in_a_few_lines():
    lines = difflib.ndiff(THEIRS.splitlines(), OURS.splitlines())
    assert len([line for line in lines if line[0] in "+-"]) < 10
    made = execute(OURS)["hello_dag"]
    spec = made.to_spec("", "")
    assert (spec.owner, spec.start) == ("data", datetime(2026, 1, 1, tzinfo=UTC))
    assert spec.schedule == Cron("0 0 * * *").compiled()
    hello = spec.tasks[1]
    assert (hello.retry.retries, hello.retry.delay_seconds, hello.timeout_seconds) == (2, 300, 3600)
    assert [hint.split(" has")[0] for hint in made.hints] == [
        "default_args: email=", "default_args: email_on_failure="
    ]  # fmt: skip
    assert "on_failure=" in made.hints[0]


def test_what_stands_beside_default_args_counts_more():
    brought = {"owner": "you", "start_date": datetime(2026, 1, 1, tzinfo=UTC)}
    made = DAG("d", owner="me", start=datetime(2027, 1, 1, tzinfo=UTC), default_args=brought)
    spec = made.to_spec("", "")
    assert (spec.owner, spec.start) == ("me", datetime(2027, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"schedule_interval": "@daily", "start_date": None, "concurrency": 3},
         "write schedule= in place of schedule_interval=; start= in place of start_date=; max_act"),
        ({"dagrun_timeout": 3}, "write timeout= in place of dagrun_timeout="),
        ({"end_date": None}, "write end= in place of"),
        ({"is_paused_upon_creation": True}, "pubsubflow dags pause"),
        ({"schedul": None}, "did you mean 'schedule'"),
        ({"default_args": {"on_failure_callback": print}},
         "default_args: write on_failure= in place of on_failure_callback="),
        ({"default_args": {"retry_exponential_backoff": True}}, "retry_backoff=2"),
        ({"schedule": "@continuous", "max_active_runs": 2}, "leave max_active_runs out"),
        ({"schedule": "@fortnightly"}, "'@fortnightly' is unknown"),
        ({"dag": DAG("outer")}, "connect two DAGs through a dataset"),
    ],
)  # fmt: skip
def test_another_word_is_answered_with_the_one_here(options, says):
    with pytest.raises(DefinitionError, match=re.escape(says)) as error:
        DAG("d", **options)
    assert (error.value.dag_id, error.value.file) == ("d", __file__)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"priority_weight": 3}, "write priority= in place of priority_weight="),
        ({"start_date": None}, "start= of the DAG"),
        ({"owner": "me"}, "owner= of the DAG"),
        ({"max_active_tis_per_dag": 1}, "concurrency_key="),
    ],
)
def test_an_operators_words_are_answered_too(options, says):
    with DAG("d"), pytest.raises(DefinitionError, match=re.escape(says)) as error:
        EmptyOperator(task_id="t", **options)
    assert error.value.task_id == "t"


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("@annually", Cron("0 0 1 1 *")),
        ("@midnight", Cron("0 0 * * *")),
        ("*/5 * * * *", Cron("*/5 * * * *")),
        (timedelta(minutes=5), Every(timedelta(minutes=5))),
    ],
)
def test_a_schedule_may_be_written_as_text(text, means):
    assert DAG("d", schedule=text).schedule == means.compiled()


def test_continuous_runs_follow_one_another():
    assert DAG("d", schedule="@continuous").to_spec("", "").max_active_runs == 1
    assert DAG("e", schedule="@daily").to_spec("", "").max_active_runs == 16


def test_a_dag_is_given_to_its_tasks():
    first = DAG("first", default_args={"retries": 1})
    with DAG("other") as other:
        a = EmptyOperator(task_id="a", dag=first)
        b = BashOperator(task_id="b", bash_command="true", dag=first)

        @task(dag=first)
        def c(x):
            return x

        with task_group("g", dag=first):
            d = EmptyOperator(task_id="d")
        e = BashOperator.partial(task_id="e", dag=first).expand(bash_command=["true", "false"])
        inside = EmptyOperator(task_id="inside")
    a >> b >> c(1) >> d >> e
    assert list(other.nodes) == ["inside"]
    assert inside.task_id == "inside"
    assert sorted(first.nodes) == ["a", "b", "c", "e", "g.d"]
    assert all(node.options.retries == 1 for node in first.nodes.values())
    with pytest.raises(DefinitionError, match="dag='first' is not a DAG"):
        EmptyOperator(task_id="x", dag="first")


MISPLACED = [
    ("a = EmptyOperator(task_id='a')\nwith DAG('d'):\n    pass\n",
     "move line 2 into the block of `with DAG(…)` (line 3)"),
    ("with DAG('d'):\n    pass\na = EmptyOperator(task_id='a')\n",
     "move line 4 into the block of `with DAG(…)` (line 2)"),
    ("a = EmptyOperator(task_id='a')\nmine = DAG('d')\n",
     "move line 2 below line 3 and give it dag=mine"),
    ("mine = DAG('d')\n@task\ndef t(): ...\nt()\n", "give line 5 dag=mine"),
    ("a = EmptyOperator(task_id='a')\n@dag(schedule=None)\ndef flow():\n    pass\n",
     "move line 2 into the function flow (line 4)"),
    ("a = EmptyOperator(task_id='a')\n", "write it inside `with DAG(…):` or an @dag function"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says"), MISPLACED)
def test_a_task_without_a_dag_says_which_line_to_move(text, says):
    names = "from pubsubflow import DAG, EmptyOperator, dag, task\n"
    with pytest.raises(DefinitionError, match=re.escape(says)):
        execute(names + text, f"misplaced{len(text)}.py")
