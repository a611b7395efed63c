"""Connections in commands, a daemon and its tasks: the examples of docs/connections.md."""

import json
import re
import shlex
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[3] / "docs" / "connections.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
LINES = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)).splitlines()
COMMANDS = [shlex.split(line)[1:] for line in LINES if line.startswith("pubsubflow")]


@pytest.fixture
def done(psf):
    """Call a command that must do what it is asked, and show no secret."""

    def call(*arguments, **more):
        answer = psf(*arguments, **more)
        assert answer.code == 0, answer.err
        assert "hush" not in answer.out + answer.err
        return answer

    return call


def test_the_examples_of_the_page_work(done, psf, daemon_home, tmp_path):
    asked, scripted, token, *_, limited, rotated = COMMANDS
    done(*asked, typed="hush-first\n")
    assert (daemon_home / "keys").stat().st_mode & 0o777 == 0o600
    assert PYTHON[0] in (Path(__file__).with_name("dags") / "connecting.py").read_text()
    run_copy_out(done)
    done(*scripted, DB_PASSWORD="hush-second")
    (tmp_path / "token.txt").write_text("hush-token\n")
    done(*token, cwd=tmp_path)
    key = (daemon_home / "keys").read_text()
    assert "encrypts 2 connections" in done(*rotated).out
    assert (daemon_home / "keys").read_text() != key
    run_copy_out(done)
    shown = done("connections", "show", "crm", "--json").json
    assert (shown["kind"], shown["secrets"], shown["extra"]) == (
        "crm",
        {"token": "***"},
        {"region": "eu"},
    )
    assert "etl_* report" in done(*limited).out
    assert done("connections", "show", "warehouse", "--json").json["dags"] == ["etl_*", "report"]
    run = done("dags", "trigger", "copy_out", "--json").json
    assert "failed" in psf("runs", "wait", run["run_id"]).out
    refused = psf("tasks", "logs", run["run_id"], "where").out
    assert "'warehouse' is for DAGs etl_*, report; this is 'copy_out'" in refused
    done("connections", "set", "warehouse", "--dags", "*")
    run_copy_out(done)
    listed = done("connections", "list").out
    assert "postgres://ann@db.example.com/sales" in listed
    assert "password=***" in listed


def run_copy_out(done):
    """Run the page's DAG, and look at its log."""
    run = done("dags", "trigger", "copy_out", "--wait", "--json").json
    assert run["state"] == "success"
    log = done("tasks", "logs", run["run_id"], "where").out
    assert "connecting to postgres://ann:***@db.example.com" in log


def test_connections_are_moved_with_and_without_secrets(done, tmp_path):
    done(
        "connections",
        "set",
        "moved",
        "--uri",
        "https://ann@x/v2",
        "--secret",
        "token=env:A",
        A="hush",
    )
    file, whole = tmp_path / "masked.json", tmp_path / "whole.json"
    whole.touch(mode=0o644)
    done("connections", "export", file)
    done("connections", "export", whole, "--with-secrets")
    assert json.loads(file.read_text())["moved"]["secrets"] == {"token": "***"}
    assert json.loads(whole.read_text())["moved"]["secrets"] == {"token": "hush"}
    assert whole.stat().st_mode & 0o777 == 0o600
    assert any(
        "connections/export" in each["action"] for each in done("audit", "list", "--json").json
    )
    # A mask keeps what is stored; where nothing is, it is named.
    assert done("connections", "import", file, "--json").json["missing"] == []
    done("connections", "delete", "moved")
    left = done("connections", "import", file)
    assert "without moved.token, which the file masks" in left.out
    done("connections", "import", whole)
    assert done("connections", "show", "moved", "--json").json["secrets"] == {"token": "***"}


def test_connections_of_airflow_are_imported(done, psf, tmp_path):
    file = tmp_path / "airflow.json"
    sales = {
        "conn_type": "postgres",
        "host": "db",
        "port": 5432,
        "schema": "sales",
        "login": "ann",
        "password": "hush",
        "extra": '{"sslmode": "require"}',
    }
    file.write_text(json.dumps({"sales": sales, "crm": "https://:hush@crm/v2"}))
    assert done("connections", "import", file, "--json").json["set"] == ["sales", "crm"]
    found = done("connections", "show", "sales", "--json").json
    assert (found["uri"], found["secrets"]) == ("postgres://ann@db:5432/sales", {"password": "***"})
    assert found["extra"] == {"sslmode": "require"}
    lines = "# as for a container\nsmtp_default=smtp://mail:25\n\n"
    assert "set 1 connection" in done("connections", "import", "-", typed=lines).out
    for text, says in [("{", "write an object"), ("oops", "NAME=URI"), ('{"a b": "x://y"}', "a b")]:
        refused = psf("connections", "import", "-", typed=text)
        assert (refused.code, says in refused.err) == (2, True), refused


def test_values_not_given_stay_and_forgotten_secrets_are_deleted(done, psf):
    secrets = ["--secret", "a=env:A", "--secret", "b=env:A"]
    made = done("connections", "set", "two", *secrets, "--json", A="hush-a").json
    changed = done("connections", "set", "two", "--uri", "https://x/", "--forget", "b", "--json")
    assert changed.json["revision"] != made["revision"]
    assert (changed.json["secrets"], changed.json["kind"]) == ({"a": "***"}, "https")
    done("connections", "delete", "two")
    assert psf("connections", "show", "two").code == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--secret", "token=hush"], "a value on the command line shows in lists"),
        (["--uri", "https://ann:hush@x/"], "a password in --uri shows in lists"),
        (["--secret", "token=env:NOT_SET"], "NOT_SET is not set"),
        (["--secret", "token=@/nowhere"], "/nowhere cannot be read"),
        (["--secret", "a", "--secret", "b"], "stdin holds one secret, not 2"),
        (["--extra", '{"password": "hush"}'], "put it under secrets"),
        (["--extra", "[]"], "is not a JSON object"),
    ],
)
def test_values_that_show_a_secret_or_do_not_fit_are_refused(psf, arguments, complaint):
    answer = psf("connections", "set", "x", *arguments, typed="")
    assert answer.code == 2
    assert complaint in answer.err
    assert "hush" not in answer.err


def test_the_task_of_the_page_runs_without_servers():
    names = {"__name__": "page"}
    exec(compile("\n".join(PYTHON), "page", "exec"), names)
    lines = [line.message for line in names["result"].tasks["where"][0].logs]
    assert lines == ["connecting to postgres://ann:pw@localhost/sales"]
