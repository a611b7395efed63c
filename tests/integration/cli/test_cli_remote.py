"""Every command that connects to a daemon, on a remote one: with its URL and a token alone."""

import importlib
import inspect
import json
from pathlib import Path

import pytest

from pubsubflow.cli.main import _COMMANDS, run

FUSSY = "s3://waiting/orders"
CLOSING = {
    "tokens create",
    "tokens revoke",
}  # a token would close this daemon to the other tests; see test_cli_access
SERVING = {" mcp"}  # ends with its stdin; see test_cli_mcp


class Remote:
    """Runs commands in this process, which knows a URL and a token alone."""

    def __init__(self, url, capfd):
        self.url = url
        self._capfd = capfd
        self.called = set()

    def __call__(self, *arguments, code=0):
        """Return what a command prints; in JSON, decoded."""
        self.called.add(" ".join(arguments[:2]))
        given = run([*map(str, arguments), "--server", self.url])
        out, err = self._capfd.readouterr()
        assert given == code, (arguments, err)
        assert err.count("\n") == (1 if code and not out else 0), (arguments, err)
        return json.loads(out) if "--json" in arguments else out


@pytest.fixture
def remote(daemon_url, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PUBSUBFLOW_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("PUBSUBFLOW_TOKEN", "t0ken")
    monkeypatch.chdir(tmp_path)
    return Remote(daemon_url, capfd)


def remote_commands():
    """Return the names of all commands that connect to a daemon."""
    for group, (_, commands) in _COMMANDS.items():
        for name, (place, _) in commands.items():
            module, _, function = place.partition(":")
            command = getattr(
                importlib.import_module(f"pubsubflow.cli.commands.{module}"), function
            )
            if "target" in inspect.signature(command).parameters:
                yield f"{group} {name}"


def refuse(remote):
    """Return the number of the dead letter of a run whose params did not fit."""
    remote("datasets", "emit", FUSSY)
    return remote("dead-letters", "list", "--json")[0]["id"]


def set_state(remote, dag):
    """Run the commands on the state of a DAG."""
    assert remote("dags", "state", dag, "mark", "--set", "[1]", "--json")["value"] == [1]
    assert remote("dags", "state", dag, "--json")[0]["name"] == "mark"
    assert "hand" in remote("dags", "state", dag)
    remote("dags", "state", dag, "mark", "--reset")


def choose_versions(remote, dag):
    """Run the commands on the versions of a DAG, which has one."""
    (only,) = remote("dags", "versions", dag, "--json")
    assert only["in_force"]
    remote("dags", "versions", dag, "--diff", "1", "1", code=2)
    assert "def " in remote("dags", "show", dag, "--version", "1")
    assert remote("dags", "rollback", dag, "--to", "1", "--json")["pinned"]
    assert not remote("dags", "promote", dag, "--json")["pinned"]
    simulated = remote("dags", "simulate", dag, "--event", f"2026-11-20T09:00Z {FUSSY}", "--json")
    assert [each["outcome"] for each in simulated["outcomes"]] or simulated["runs"]
    assert "waits for" in remote("dags", "simulate", "--schedule", 'Dataset("s3://x/a")')
    remote("dags", "delete", dag, "--dry-run", code=1)  # its file defines it


def set_variables(remote):
    """Run the commands on variables."""
    assert remote("variables", "set", "far", "[1]", "--json")["value"] == [1]
    assert remote("variables", "get", "far").strip() == "[1]"
    assert "far" in remote("variables", "list")
    remote("variables", "export", "variables.json")
    assert json.loads(Path("variables.json").read_text())["far"] == [1]
    assert remote("variables", "import", "variables.json", "--json")["set"] >= 1
    planned = remote("airflow", "import", "--variables", "variables.json", "--json")
    assert {"same"} == {each["action"] for each in planned["things"]}
    remote("variables", "delete", "far")


def handle(remote, ended):
    """Run the commands that change runs."""
    assert [each["level"] for each in remote("dags", "graph", "first", "--json")] == [0, 1, 2]
    assert remote("runs", "tag", ended, "far", "--json")["tags"] == ["far"]
    assert remote("runs", "note", ended, "far", "--json")["note"] == "far"
    assert remote("runs", "mark", "failed", ended, "--dry-run", "--json")["dry_run"]
    assert remote("tasks", "mark", "failed", ended, "say", "--dry-run", "--json")["tasks"]
    assert remote("runs", "clear", "--tag", "far", "--dry-run", "--json")["counts"]["planned"] == 1
    assert remote("runs", "clear", ended, "--dry-run", "--json")["tasks"]
    assert remote("tasks", "clear", ended, "say", "--dry-run", "--json")["tasks"]
    remote("runs", "retry", ended, "--dry-run", code=1)  # nothing of it failed


def backfill(remote):
    """Run the commands on backfills."""
    Path("keys").write_text("\n".join(map(str, range(500))))
    keys = ("--partitions-file", "keys", "--max-active-runs", "1")
    made = remote("dags", "backfill", "first", *keys, "--json")
    backfill = made["backfill_id"]
    assert remote("backfills", "pause", backfill, "--json")["state"] == "paused"
    assert backfill in remote("backfills", "list", "--state", "paused")
    assert "max" not in remote("backfills", "show", backfill, "--limit", "5")
    assert remote("backfills", "resume", backfill, "--json")["state"] == "running"
    assert "cancelled" in remote("backfills", "cancel", backfill, "--running")
    assert "cancelled" in remote("backfills", "wait", backfill, code=1)
    remote("backfills", "show", "none", code=2)


def approve(remote):
    """Run the commands on approvals."""
    run_id = remote("dags", "trigger", "deploying", "--json")["run_id"]
    while not (
        found := [x for x in remote("approvals", "list", "--json") if x["run_id"] == run_id]
    ):
        pass
    approval = found[0]["id"]
    assert "Deploy to production?" in remote("approvals", "list")
    assert "/approve/" in remote("approvals", "link", approval, "--person", "ann")
    remote("approvals", "answer", approval, "approve", code=2)  # a value is missing
    remote("approvals", "answer", approval, "approve", "-v", "percent=3", "-v", "note=5")
    assert "answered: approve" in remote("approvals", "show", approval)


def administer(remote):
    """Run the commands of an admin: on pools, connections and subscriptions."""
    assert remote("pools", "set", "far", "2", "--json")["slots"] == 2
    assert "far" in remote("pools", "list")
    assert isinstance(remote("pools", "rates", "--json"), list)
    assert isinstance(remote("alerts", "list", "--json"), list)
    remote("alerts", "show", "999999", code=2)  # there are none
    remote("alerts", "ack", "999999", code=2)
    remote("checks", "show", "far", code=2)
    assert [remote("checks", name, "--json") for name in ("list", "results", "held")] == [[]] * 3
    for name in ("release", "discard", "run-again"):
        done = remote("checks", name, "0192f0c1-0000-7000-8000-000000000000", "--json")
        assert done == {"events": [], "more": False}
    remote("pools", "delete", "far")
    remote("connections", "set", "far", "--uri", "x://far/y", "--json")
    assert remote("connections", "show", "far", "--json")["uri"] == "x://far/y"
    assert "far" in remote("connections", "list")
    assert {"http", "smtp"} <= {each["name"] for each in remote("connections", "types", "--json")}
    assert "Sent as a bearer token" in remote("connections", "types", "http")
    exported = ("connections", "export", "connections.json", "--with-secrets")
    assert remote(*exported, "--json")["exported"] >= 1
    assert "far" in remote("connections", "import", "connections.json", "--json")["set"]
    assert "nothing was tried" in remote("connections", "test", "far")
    remote("connections", "set", "far", "--type", "http", code=2)  # its uri does not fit
    assert isinstance(remote("plugins", "list", "--json"), list)
    remote("connections", "rotate")
    assert remote("open", "--print", "--as", "ann", "--json")["name"] == "local:ann"
    remote.called.add(" open")
    assert isinstance(remote("sessions", "list", "--json"), list)
    remote("sessions", "revoke", "00000000-0000-0000-0000-000000000000", code=2)  # none has it
    remote("connections", "delete", "far")
    set_variables(remote)
    made = remote("subscriptions", "create", "http://127.0.0.1:9/", "--json")["id"]
    assert remote("subscriptions", "pause", made, "--json")["id"] == made
    assert remote("subscriptions", "resume", made, "--json")["id"] == made
    assert remote("subscriptions", "show", made, "--json")["id"] == made
    assert made in [each["id"] for each in remote("subscriptions", "list", "--json")]
    remote("subscriptions", "test", made, code=1)  # the port is closed
    remote("subscriptions", "delete", made)


def trace(remote, ended):
    """Run the commands that trace runs and events."""
    assert remote("runs", "trace", ended, "--json")["id"] == ended
    emitted = remote("datasets", "events", "--limit", "1", "--json")[0]["event_id"]
    assert remote("datasets", "trace", emitted, "--json")["kind"] == "event"


def check_lists(remote):
    """List what the daemon has, in JSON and as tables."""
    lists = ("dags", "datasets", "runs", "triggers", "hooks", "dead-letters", "tokens", "audit")
    for group in lists:
        found = remote(group, "list", "--json")
        assert isinstance(found, list)
        shown = remote(group, "list", "--tz", "Europe/Warsaw")
        # The zone is named once, in the heading; a list of nothing has none.
        assert shown.splitlines()[0].count("(Europe/Warsaw)") == bool(found), shown


def test_every_command_works_on_a_remote_daemon(remote, tmp_path):
    ended = remote("dags", "trigger", "first", "--wait", "--json")["run_id"]
    live = remote("dags", "trigger", "lingers", "--json")["run_id"]
    check_lists(remote)
    assert remote("dags", "show", "first", "--json")["dag_id"] == "first"
    set_state(remote, "first")
    choose_versions(remote, "first")
    assert remote("dags", "why-not", "second", "--json")["reasons"]
    planned = remote("dags", "backfill", "first", "--partition", "p", "--dry-run", "--json")
    assert planned["dry_run"]
    backfill(remote)
    assert remote("datasets", "show", FUSSY, "--json")["dataset"] == FUSSY
    remote("datasets", "show", "s3://un/known", code=2)
    assert remote("dags", "call", "squared", "--json")["result"] == [9, 1, 4]
    assert remote("dags", "pause", "broken", "--json")["paused"]
    assert "not paused" in remote("dags", "unpause", "broken")
    assert remote("datasets", "events", "--fate", "--limit", "2", "--json") is not None
    replay = ("datasets", "replay", "--from", "-1h", "--dag", "first", "--dry-run")
    assert remote(*replay, "--json")[0]["dag_id"] == "first"
    assert remote("runs", "show", ended, "--json")["state"] == "success"
    assert remote("runs", "explain", ended, "--json")["run_id"] == ended
    trace(remote, ended)
    assert ended in remote("runs", "wait", ended)
    assert remote("runs", "cancel", live, "--json")["state"] == "cancelled"
    assert len(remote("tasks", "list", ended, "--json")) == 5
    assert "line 0" in remote("tasks", "logs", ended, "say", "--follow")
    remote("tasks", "result", ended, "say")
    assert remote("tasks", "show", ended, "say", "--json")["task_id"] == "say"
    assert remote("workers", "list", "--json")
    remote("dags", "reload")
    handle(remote, ended)
    administer(remote)
    approve(remote)
    dead_letter = refuse(remote)
    remote("dead-letters", "resend", dead_letter, code=1)  # it is refused again
    dead_letter = refuse(remote)
    shown = remote("dead-letters", "show", dead_letter, "--json")
    summary = remote("dead-letters", "summary", "--json")
    (group,) = [each for each in summary if each["example"] == dead_letter]
    assert group["count"] >= 2  # tests before this one share the daemon
    assert f"{group['count']} " in remote("dead-letters", "summary")
    older = remote("dead-letters", "list", "--reason", group["reason"], "--json")[1]["id"]
    done = remote("dead-letters", "discard", older, "--json")
    assert done == {"discarded": [older], "more": False}
    remote("dead-letters", "discard", older, code=1)  # it is not open any more
    remote("dead-letters", "resend", "--kind", "hook", "--json")
    remote("dead-letters", "discard", code=2)
    file = tmp_path / "mended.json"
    file.write_text(json.dumps({**shown["payload"], "params": {"rows": 1}}))
    assert remote("dead-letters", "edit", dead_letter, "--payload", file, "--json")["run_id"]
    assert remote.called >= set(remote_commands()) - CLOSING - SERVING, (
        "add the command that is missing here"
    )


RUN = "01900000-0000-7000-8000-000000000000"
UNKNOWN = """
dags show nope            | dags why-not nope         | dags trigger nope   | dags pause nope
dags graph nope           | dags state nope           | dags call nope
datasets show x://nope    | datasets events x://nope  | runs show RUN       | runs show nope
runs explain RUN          | runs wait RUN             | runs cancel RUN     | runs retry RUN
runs clear RUN --yes      | runs tag RUN x            | runs note RUN x     | runs mark failed RUN
tasks list RUN            | tasks show RUN x          | tasks logs RUN x    | tasks result RUN x
tasks clear RUN x --yes   | tasks mark failed RUN x   | connections show nope
connections delete nope   | connections test nope     | variables get nope  | variables delete nope
subscriptions show RUN    | subscriptions delete RUN  | subscriptions test RUN
dead-letters show 999999  | alerts show 999999        | approvals show RUN  | pools delete nope
runs trace RUN            | datasets trace RUN
"""


def test_what_is_unknown_is_named_in_one_line_with_exit_code_2(remote, capfd):
    commands = [each for line in UNKNOWN.strip().splitlines() for each in line.split("|")]
    for command in commands:
        words = [RUN if word == "RUN" else word for word in command.split()]
        assert run([*words, "--server", remote.url]) == 2, command
        out, err = capfd.readouterr()
        assert (out, err.count("\n")) == ("", 1), (command, err)
        assert any(word in err for word in words[2:]), (command, err)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--token", "a b"], 2, "the token is invalid"),
        (["--ca", "none.pem"], 2, "none.pem cannot be used"),
        (["--server", "ftp://x"], 2, "not the URL of a server"),
        ([], 3, "no server answers"),
    ],
)
def test_a_wrong_target_is_one_line_of_error(remote, monkeypatch, capfd, arguments, code, says):
    monkeypatch.setenv("PUBSUBFLOW_SERVER", "http://127.0.0.1:9")
    assert run(["dags", "list", *arguments]) == code
    said = capfd.readouterr().err
    assert (says in said, said.count("\n")) == (True, 1)
