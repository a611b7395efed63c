"""Old imports are rewritten, old uses noted: here without Airflow, so that all names lack."""

import ast

import pytest

from pubsubflow.airflow.inside.legacy import table
from pubsubflow.airflow.inside.legacy.rewrite import rewrite
from pubsubflow.airflow.inside.legacy.scan import scan
from pubsubflow.airflow.inside.loading.distributions import distribution_of
from pubsubflow.airflow.inside.loading.notes import NoteBook

FILE = "/srv/dags/etl.py"


@pytest.fixture
def notes():
    return NoteBook(["/srv/dags"])


def rewritten(text, notes):
    return ast.unparse(rewrite(ast.parse(text), FILE, notes))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "from airflow.operators.bash_operator import BashOperator as B",
            "from airflow.providers.standard.operators.bash import BashOperator as B",
        ),
        (
            "from airflow.operators.dummy import DummyOperator",
            "from airflow.providers.standard.operators.empty import EmptyOperator as DummyOperator",
        ),
        (
            "from airflow.hooks.base_hook import BaseHook",
            "from airflow.sdk import BaseHook",
        ),
        (
            "import airflow.operators.python_operator",
            "import airflow",
        ),
        (
            "from airflow.operators.python_operator import *",
            "from airflow.providers.standard.operators.python import *",
        ),
        ("from airflow import DAG", "from airflow import DAG"),
        ("from .operators import bash_operator", "from .operators import bash_operator"),
        ("from operators.bash_operator import X", "from operators.bash_operator import X"),
    ],
)
def test_an_import(old, new, notes):
    assert rewritten(old, notes) == new


def test_some_names_of_an_import_stay(notes):
    text = "from airflow.utils.helpers import chain, merge_dicts"
    assert rewritten(text, notes).splitlines() == [
        "from airflow.utils.helpers import merge_dicts",
        "from airflow.sdk import chain",
    ]


def test_names_reached_by_attributes(notes):
    text = "import airflow\nfrom airflow.utils import dates as d\n"
    text += "airflow.utils.dates.days_ago(1)\nd.days_ago(2)\nother.days_ago(3)\n"
    lines = rewritten(text, notes).splitlines()
    assert lines[2].endswith(".find_object('airflow.utils.dates', 'days_ago')(1)")
    assert lines[3].endswith(".find_object('airflow.utils.dates', 'days_ago')(2)")
    assert lines[4] == "other.days_ago(3)"
    assert [note.line for note in notes.notes()] == [3, 4]


def test_a_name_without_successor_raises_where_it_is_imported(notes):
    text = "try:\n    from airflow.operators.subdag_operator import SubDagOperator\n"
    text += "except ImportError as error:\n    caught = str(error)\n"
    space = {}
    exec(compile(rewrite(ast.parse(text), FILE, notes), FILE, "exec"), space)
    assert "write a TaskGroup" in space["caught"]
    assert [(note.line, note.kind) for note in notes.notes()] == [(2, "fails")]


def test_positions_stay(notes):
    text = "\n\nfrom airflow.utils.dates import days_ago, nothing\n\n1 / 0\n"
    tree = rewrite(ast.parse(text), FILE, notes)
    assert [node.lineno for node in tree.body] == [3, 3, 5]


def lines_of(text, notes):
    scan(ast.parse(text), FILE, notes)
    return [(note.line, note.use, note.kind) for note in notes.notes()]


@pytest.mark.parametrize(
    ("text", "use", "kind"),
    [
        ("x = 'echo {{ execution_date }}'", "execution_date", "legacy"),
        ("x = '{% if next_ds %}a{% endif %}'", "next_ds", "legacy"),
        ("context['prev_ds']", "prev_ds", "legacy"),
        ("kwargs.get('yesterday_ds')", "yesterday_ds", "legacy"),
        ("def f(execution_date, **kwargs): ...", "execution_date", "legacy"),
        ("ti.xcom_pull(key='x')", "xcom_pull(key=...) without task_ids", "changed"),
        (
            "from airflow.settings import Session\ndef f(): Session()",
            "Session()",
            "fails",
        ),
        (
            "from airflow.models import DagRun\ndef f(): DagRun.find()",
            "DagRun.find()",
            "fails",
        ),
        (
            "from airflow.utils.session import provide_session\n@provide_session\ndef f(): ...",
            "@provide_session",
            "fails",
        ),
    ],
)
def test_a_use_that_shows_when_a_task_runs(text, use, kind, notes):
    assert [each[1:] for each in lines_of(text, notes)] == [(use, kind)]


@pytest.mark.parametrize(
    "text",
    [
        '"""Uses {{ execution_date }}."""',
        "x = 'the execution_date of 2.x'",
        "x = '{{ dag_run.execution_date }}'",
        "row['execution_date']",
        "def f(execution_date): ...",
        "ti.xcom_pull(task_ids='a', key='x')",
        "ti.xcom_pull(**given)",
        "session = Session()",
        "DagRun.find()",
        "from airflow.models import Variable\nVariable.get('x')",
    ],
)
def test_what_is_not_a_use(text, notes):
    assert lines_of(text, notes) == []


def test_only_the_teams_files_are_its_own():
    notes = NoteBook(["/srv/dags"])
    assert notes.is_own("/srv/dags/a/b.py")
    assert notes.is_own("/srv/dags/a.zip/b.py")
    assert not notes.is_own("/srv/dags_of_others/b.py")
    assert not notes.is_own("/srv/dags/.venv/lib/python3.12/site-packages/b.py")


def test_rows_are_whole_and_each_is_there_once():
    rows = table.rows()
    assert len({(row.module, row.name) for row in rows}) == len(rows) > 300
    for row in rows:
        assert row.module.startswith("airflow")
        assert row.today
        assert bool(row.new_module) != bool(row.remedy)


@pytest.mark.parametrize(
    ("module", "distribution"),
    [
        ("airflow.providers.ssh.operators.ssh", "apache-airflow-providers-ssh"),
        ("airflow.providers.apache.hive.hooks.hive", "apache-airflow-providers-apache-hive"),
        ("airflow.providers.cncf.kubernetes", "apache-airflow-providers-cncf-kubernetes"),
        ("airflow.providers.microsoft.azure.hooks", "apache-airflow-providers-microsoft-azure"),
    ],
)
def test_the_distribution_of_a_provider(module, distribution):
    assert distribution_of(module) == distribution
