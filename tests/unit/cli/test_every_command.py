"""What holds for every command: the table is walked, so one that is added is tried, too."""

import importlib
import inspect
from io import StringIO

import pytest

from pubsubflow.cli.main import _COMMANDS, run

# Arguments of commands that refuse what a signature alone does not say.
GIVEN = {
    "dags simulate": ["x"],
    "dags state": ["x"],
    "runs cancel": ["x"],
    "runs retry": ["x"],
    "runs clear": ["x", "--yes"],
    "tasks clear": ["x", "y", "--yes"],
    "approvals link": ["x", "--person", "ann"],
    "tokens create": ["x", "--role", "viewer"],
    "runs tag": ["x", "y"],
    "runs mark": ["failed", "x"],
    "tasks mark": ["failed", "x", "y"],
    "variables set": ["x", "y"],
    "variables import": ["FILE"],
    "connections import": ["FILE"],
    "airflow import": ["--variables", "FILE"],
    "dead-letters resend": ["1"],
    "dead-letters discard": ["1"],
    "dead-letters edit": ["1", "--payload", "FILE"],
    "checks release": ["x"],
    "checks discard": ["x"],
    "checks run-again": ["x"],
    "datasets emit": ["s3://a/b"],
    "datasets show": ["s3://a/b"],
    "datasets replay": ["--from", "-1h"],
    "subscriptions create": ["http://a.example/"],
}


def commands():
    for group, (_, found) in _COMMANDS.items():
        for name, (place, _) in found.items():
            module, _, function = place.partition(":")
            called = getattr(importlib.import_module(f"pubsubflow.cli.commands.{module}"), function)
            yield f"{group} {name}".strip(), inspect.signature(called).parameters


COMMANDS = dict(commands())
REMOTE = [name for name, parameters in COMMANDS.items() if "target" in parameters]


def arguments(name, file):
    """Return arguments with which a command gets as far as its daemon."""
    if name in GIVEN:
        return [file if each == "FILE" else each for each in GIVEN[name]]
    return [
        "1" if each.annotation is int else "x"
        for each in COMMANDS[name].values()
        if each.default is each.empty and each.kind is each.POSITIONAL_ONLY
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_what_shows_something_has_json(name):
    if name.split()[-1] in {"list", "show", "events", "summary", "types", "rates", "graph"}:
        assert COMMANDS[name].keys() & {"target", "json"}


@pytest.mark.parametrize("name", REMOTE)
def test_a_daemon_out_of_reach_is_one_line_and_exit_code_3(name, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PUBSUBFLOW_SERVER", "http://127.0.0.1:9")
    monkeypatch.setattr("sys.stdin", StringIO())
    file = tmp_path / "file.json"
    file.write_text('{"x": "http://a.example"}')
    code = run([*name.split(), *arguments(name, str(file))])
    out, err = capfd.readouterr()
    assert (code, out) == (3, ""), err
    assert err.count("\n") == 1
    assert "start one with `pubsubflow up`" in err


@pytest.mark.parametrize("name", ["up", "dags list", "runs wait", "connections export"])
def test_an_unknown_option_is_one_line_and_exit_code_2(name, capfd):
    code = run([*name.split(), *arguments(name, "f"), "--colour"])
    out, err = capfd.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"See `pubsubflow {name} --help`." in err
