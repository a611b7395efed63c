"""A host prepares attempts: what it does in advance is shared, and leaves nothing of its own."""

import json
from pathlib import Path

import pytest

from support.airflow import run_inside

PLUGIN = """
from pathlib import Path

from airflow.plugins_manager import AirflowPlugin

Path(__file__).with_name("imported").touch()


class Team(AirflowPlugin):
    name = "team"
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    home = tmp_path_factory.mktemp("prepared")
    (home / "plugins").mkdir()
    (home / "plugins" / "team.py").write_text(PLUGIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        patch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
        printed = run_inside("preparing_inside:main", home=home)
    return printed.decode().splitlines(), home


def test_a_rehearsal_leaves_nothing(prepared):
    lines, _ = prepared
    found = json.loads(lines[-1])
    assert len(lines) == 1  # its task has written some, too
    assert found["changes"] == []
    assert found["sigterm"]
    assert not found["supervisor"]


def test_plugins_are_left_to_the_processes_of_files(prepared):
    lines, home = prepared
    found = json.loads(lines[-1])
    assert [found["plugins"], found["macros"], found["listeners"]] == [0, 0, 0]
    assert not (home / "plugins" / "imported").exists()


def test_what_attempts_would_make_is_made_once(prepared):
    lines, _ = prepared
    found = json.loads(lines[-1])
    assert found["adapter"]
    assert found["table"]
    assert found["core"]


def test_what_a_child_imports_is_there_for_the_next_one(prepared):
    assert json.loads(prepared[0][-1])["learnt"]
