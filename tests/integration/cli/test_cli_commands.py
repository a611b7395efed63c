"""Commands on a running daemon: DAGs, datasets, runs and tasks."""

import json
import re
import uuid
from importlib.metadata import version

import pytest

from pubsubflow.model.wire.protocol import PROTOCOL

SOURCE = "s3://lake/source"


@pytest.fixture
def first_run(psf):
    """A run of DAG `first` that has ended, and that of `second` behind it."""
    event = psf("datasets", "emit", SOURCE, "--extra", '{"rows": 7}', "-s", "by=test")
    assert event.code == 0, event.err
    event_id = event.out.strip()
    first = next(
        run["run_id"]
        for run in psf("runs", "list", "--dag", "first", "--json").json
        if psf("runs", "explain", run["run_id"], "--json").json["runs"][0]["events"][:1]
        and psf("runs", "explain", run["run_id"], "--json").json["runs"][0]["events"][0]["event_id"]
        == event_id
    )
    assert psf("runs", "wait", first, "--timeout", "60").code == 0
    return event_id, first


def test_dags_are_listed_and_shown(psf):
    listed = psf("dags", "list")
    assert listed.code == 0
    assert "first" in listed.out
    assert SOURCE in listed.out
    assert {dag["dag_id"] for dag in psf("dags", "list", "--json").json} >= {
        "first",
        "second",
        "broken",
    }
    shown = psf("dags", "show", "first")
    assert "each" in shown.out
    assert "(mapped)" in shown.out
    assert psf("dags", "show", "first", "--json").json["params"] == {"times": 2}


def test_workers_are_listed_with_their_queues(psf):
    listed = psf("workers", "list")
    assert listed.code == 0, listed.err
    assert "default" in listed.out
    (worker,) = psf("workers", "list", "--json").json
    assert worker["queues"] == ["default"]
    assert worker["free_async"] == 200
    assert worker["host"]
    assert worker["version"] == version("pubsubflow")
    assert worker["protocol"] == PROTOCOL


def test_a_run_is_explained_from_its_task_back_to_the_event(psf, first_run):
    event_id, first = first_run
    second = psf("runs", "list", "--dag", "second", "--limit", "1", "--json").json[0]["run_id"]
    assert psf("runs", "wait", second).code == 0
    shown = psf("runs", "explain", second)
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert f"second {second}" in lines[0]
    assert 'middle {"sum":12}' in lines[1]
    assert "task pass_on of" in lines[1]
    assert f"first {first}" in lines[2]
    assert SOURCE in lines[3]
    assert "from outside (cli)" in lines[3]
    facts = psf("runs", "explain", second, "--json").json
    assert facts["runs"][-1]["events"][0]["event_id"] == event_id
    assert facts["runs"][-1]["events"][0]["extra"] == {"rows": 7, "by": "test"}


def test_an_event_and_a_run_are_traced_both_ways(psf, first_run):
    event_id, first = first_run
    lines = psf("datasets", "trace", event_id).out.splitlines()
    assert lines[0].startswith(f"{SOURCE} {event_id}")
    assert lines[1:3] == ["├── because of", "│   └── the origin: from outside (cli)"]
    (run,) = [line for line in lines if f"first {first}" in line]
    assert re.search(r"\d+ ms after the event  took \d", run)
    assert any("middle" in line and "emitted by task pass_on" in line for line in lines)
    shown = psf("runs", "trace", first, "--causes", "1", "--effects", "1").out
    assert f"{SOURCE} {event_id}" in shown
    assert re.search(r"\d+ ms before the run", shown)
    assert psf("runs", "trace", first, "--task", "say", "--json").json["runs"][0]["emitted"] == 0


def test_tasks_and_their_output_are_shown(psf, first_run):
    _, first = first_run
    tasks = psf("tasks", "list", first, "--json").json
    assert [task["id"].removeprefix(f"{first}.") for task in tasks] == [
        "say",
        "each.0",
        "each.1",
        "each.2",
        "pass_on",
    ]
    assert "each.2" in psf("tasks", "list", first).out
    plain = psf("tasks", "logs", first, "say").out.splitlines()
    assert [line.split(" ", 1)[1] for line in plain] == [
        "line 0",
        "line 1",
        "said.enough times=2",
    ]
    assert psf("tasks", "logs", first, "say", "--last", "2").out.splitlines() == plain[-2:]
    assert psf("tasks", "logs", first, "say", "--last", "2", "--follow").code == 2
    followed = psf("tasks", "logs", first, "say", "--follow", "--json").out.splitlines()
    assert [json.loads(line)["message"] for line in followed] == ["line 0", "line 1", "said.enough"]
    assert psf("tasks", "logs", first, "each", "--map-index", "1").code == 0


def test_a_task_is_shown_with_its_result_and_its_log_with_its_error(psf, first_run):
    _, first = first_run
    shown = psf("tasks", "show", first, "say").out
    assert "success" in shown
    assert "[1,2,3]" in shown
    assert psf("tasks", "show", first, "each", "--map-index", "2", "--json").json["result"] == 6
    unnamed = psf("tasks", "logs", first, "each")
    assert (unnamed.code, "is mapped" in unnamed.err) == (2, True)
    missing = psf("tasks", "logs", first, "say", "--attempt", "7")
    assert (missing.code, "no attempt" in missing.err) == (2, True)
    failed = psf("dags", "trigger", "broken", "--wait", "--json").json["run_id"]
    short = psf("tasks", "logs", failed, "fail").out
    assert "no such luck" in short
    assert "sample.py" in short
    assert "bind.py" not in short
    assert "bind.py" in psf("tasks", "logs", failed, "fail", "--full").out
    assert "no such luck" in psf("tasks", "show", failed, "fail").out
    assert "fail: ValueError: no such luck" in psf("runs", "show", failed).out


def test_runs_and_events_are_listed_for_people_and_programs(psf, first_run):
    event_id, first = first_run
    assert first in psf("runs", "list").out
    assert psf("runs", "list", "--state", "success", "--limit", "1", "--json").json
    shown = psf("runs", "show", first)
    assert "say" in shown.out
    assert psf("runs", "show", first, "--json").json["tasks"] == {"success": 5}
    assert event_id in psf("datasets", "events", SOURCE).out
    assert psf("datasets", "events", SOURCE, "--json", "--limit", "1").json
    assert "second" in psf("datasets", "list").out
    assert len(psf("datasets", "list", "--json").json) >= 2


def test_the_same_id_is_the_same_event(psf):
    key = str(uuid.uuid4())
    once = psf("datasets", "emit", "s3://lake/other", "--id", key, "--json").json
    again = psf("datasets", "emit", "s3://lake/other", "--id", key, "--json").json
    assert again == {"ids": once["ids"], "duplicates": [0]}


def test_a_triggered_run_is_waited_for_and_its_failure_is_the_exit_code(psf):
    good = psf("dags", "trigger", "first", "-p", "times=1", "--wait", "--json")
    assert (good.code, good.json["params"]) == (0, {"times": 1})
    failed = psf("dags", "trigger", "broken", "--wait")
    assert failed.code == 1
    assert "fail: ValueError: no such luck" in failed.out
    run_id = psf("dags", "trigger", "broken").out.strip()
    assert psf("runs", "wait", run_id).code == 1
    assert psf("runs", "cancel", run_id).code == 1


def test_a_dag_is_paused_and_resumed(psf):
    assert psf("dags", "pause", "broken").code == 0
    assert psf("dags", "show", "broken", "--json").json["paused"] is True
    assert psf("dags", "unpause", "broken", "--json").json["paused"] is False


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["runs", "show", "nonsense"], "no run named 'nonsense'"),
        (["dags", "trigger", "missing"], "no DAG named 'missing'"),
        (["dags", "trigger", "first", "-p", "colour=1"], "colour"),
        (["dags", "trigger", "first", "--params", "[1]"], "is not a JSON object"),
        (["datasets", "emit", "nonsense"], "needs a scheme"),
        (["datasets", "emit", "s3://a/b", "-s", "rows"], "name=value"),
        (["runs", "list", "--state", "done"], "--state"),
        (["runs", "lst"], "See `pubsubflow runs --help`"),
        (["tasks", "show", "run", "task", "1"], "unexpected argument '1'"),
    ],
)
def test_a_wrong_value_is_one_line_and_exit_code_2(psf, arguments, says):
    answer = psf(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.count("\n") == 1
    assert says in answer.err


def test_a_daemon_is_found_by_its_home_by_a_file_and_by_its_address(
    psf, anywhere, daemon_home, daemon_url, tmp_path
):
    assert anywhere("runs", "list", "--home", daemon_home).code == 0
    assert anywhere("runs", "list", "--server", daemon_url).code == 0
    assert anywhere("runs", "list", PUBSUBFLOW_SERVER=daemon_url).code == 0
    (tmp_path / "pubsubflow.toml").write_text(f'home = "{daemon_home}"\n')
    assert anywhere("runs", "list", cwd=tmp_path, HOME=str(tmp_path)).code == 0


def test_without_a_daemon_the_exit_code_is_3(anywhere, tmp_path):
    missing = anywhere("runs", "list", "--home", tmp_path)
    assert missing.code == 3
    assert "pubsubflow up" in missing.err
    assert anywhere("runs", "list", "--server", "http://127.0.0.1:9").code == 3


def test_debug_shows_the_traceback(anywhere, tmp_path):
    assert "Traceback" in anywhere("runs", "list", "--home", tmp_path, "--debug").err


def test_a_home_in_use_says_by_whom(anywhere, daemon_home, daemon_url):
    held = anywhere("db", "migrate", "--home", daemon_home)
    assert held.code == 2
    assert "is held by process" in held.err
