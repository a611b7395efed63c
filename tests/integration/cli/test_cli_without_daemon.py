"""Commands without a running daemon: check, db, demo, up."""

import os
import re
import signal
import subprocess
import sys
from importlib.metadata import version

import nats
import psutil
import pytest

ETL = """\
from pubsubflow import dag, task

@dag
def etl():
    @task
    def load() -> int:
        return 1

    load()
"""


def test_check_names_file_and_line_of_what_cannot_be_imported(anywhere, tmp_path):
    dags = tmp_path / "dags"
    dags.mkdir()
    good = "from pubsubflow import dag, task\n\n@dag\ndef fine():\n    task(print)()\n"
    (dags / "fine.py").write_text(good)
    assert anywhere("dags", "check", cwd=tmp_path).code == 0
    (dags / "wrong.py").write_text("from pubsubflow import dag\n\nnonsense\n")
    answer = anywhere("dags", "check", dags)
    assert answer.code == 1
    assert "fine" in answer.out
    assert "wrong.py:3" in answer.out
    found = anywhere("dags", "check", dags, "--json")
    assert found.code == 1
    assert [(each["file"], each["dags"]) for each in found.json] == [
        ("fine.py", ["fine"]),
        ("wrong.py", []),
    ]
    assert anywhere("dags", "check", tmp_path / "nowhere").code == 2


def test_the_database_of_a_home_is_checked_and_migrated(anywhere, tmp_path):
    missing = anywhere("db", "check", "--home", tmp_path / "home")
    assert missing.code == 2
    assert "pubsubflow up" in missing.err
    assert not (tmp_path / "home").exists()


def test_beside_a_daemon_its_database_is_checked_and_not_migrated(
    anywhere, daemon_home, daemon_url
):
    checked = anywhere("db", "check", "--home", daemon_home)
    assert (checked.code, checked.out) == (0, "the database is up to date\n")
    assert "is held by process" in anywhere("db", "migrate", "--home", daemon_home).err


@pytest.mark.anyio
async def test_the_address_of_a_daemons_own_nats_is_printed(anywhere, daemon_home, daemon_url):
    printed = anywhere("nats-url", "--home", daemon_home)
    assert printed.code == 0, printed.err
    client = await nats.connect(printed.out.strip(), allow_reconnect=False)
    assert (await client.jetstream().stream_info("PSF_IN")).config.name == "PSF_IN"
    await client.close()
    parts = anywhere("nats-url", "--home", daemon_home, "--json").json
    assert parts["url"].replace("://", f"://{parts['token']}@") == printed.out.strip()
    away = anywhere("nats-url", "--home", daemon_home / "elsewhere")
    assert away.code == 3
    assert "pubsubflow up" in away.err


@pytest.mark.parametrize("command", [[], ["dags"], ["dags", "list"], ["up"]])
def test_every_command_has_the_version_of_pubsubflow(anywhere, command):
    assert anywhere(*command, "--version").out == version("pubsubflow") + "\n"


def test_a_foreign_database_is_migrated_by_its_address(anywhere, bare_database):
    pending = anywhere("db", "check", "--postgres-url", bare_database, "--json")
    assert pending.code == 1
    assert pending.json["pending"]
    applied = anywhere("db", "migrate", "--postgres-url", bare_database, "--json")
    assert applied.json["applied"] == pending.json["pending"]
    assert anywhere("db", "check", "--postgres-url", bare_database).code == 0
    away = anywhere(
        "db",
        "check",
        "--postgres-url",
        "postgres://u:p@127.0.0.1:9/x",
        PUBSUBFLOW__POSTGRES__CONNECT_SECONDS="0.1",
    )
    assert away.code == 3


def test_the_demo_runs_twice_on_one_home(anywhere, tmp_path):
    shown = anywhere("demo", "--home", tmp_path / "home")
    assert shown.code == 0, shown.err
    assert "335,125 departures" in shown.out
    assert shown.err == ""
    report = tmp_path / "home" / "demo" / "report.json"
    again = anywhere("demo", "--home", tmp_path / "home", "--json").json
    assert again["report"]["accepted"] == 26106
    assert again["places"]["numbers"] == str(report)
    assert len(again["runs"]) == 4
    assert report.exists()


def test_a_demo_that_fails_says_why(anywhere, tmp_path, fresh_home):
    (fresh_home(tmp_path / "home") / "demo" / "flights.db").mkdir(parents=True)
    shown = anywhere("demo", "--home", tmp_path / "home")
    assert shown.code == 1
    assert "ingest: load: OperationalError" in shown.err


def test_a_demo_that_cannot_start_says_why(anywhere, daemon_home, daemon_url):
    shown = anywhere("demo", "--home", daemon_home)
    assert shown.code == 2
    assert "is held by process" in shown.err
    assert shown.err.count("\n") == 1


def test_up_with_a_manifest_imports_nothing_and_stops_on_a_signal(anywhere, tmp_path):
    folder, manifest, home = tmp_path / "dags", tmp_path / "dags.json", tmp_path / "home"
    folder.mkdir()
    (folder / "etl.py").write_text(ETL)
    assert anywhere("compile", folder, "-o", manifest).code == 0
    command = [sys.executable, "-m", "pubsubflow.cli.main", "up", str(folder), "--port", "0"]
    command += ["--home", str(home), "--manifest", str(manifest), "--log-level", "info"]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        lines = [process.stdout.readline() for _ in range(5)]
        ran = anywhere("dags", "trigger", "etl", "--wait", "--home", home)
        process.send_signal(signal.SIGINT)  # SIGTERM: the daemon on external servers
        assert process.wait(60) == 0
    assert lines[0].startswith("pubsubflow is up at http://127.0.0.1:")
    assert lines[2].endswith("/ui/ (`pubsubflow open` signs a browser in)\n")
    assert lines[3] == "1 DAG loaded\n"
    assert ran.code == 0, ran.err
    assert re.search(r"loader\.manifest_read .*files=1 .*known=1", (tmp_path / "log").read_text())
    (folder / "etl.py").write_text(f"{ETL}\n# changed")
    refused = anywhere("up", folder, "--home", home, "--manifest", manifest)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "etl.py has changed; compile the folder again" in refused.err


def test_a_child_daemon_ends_with_its_parent(tmp_path, fresh_home):
    fresh_home(tmp_path / "home")
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from pubsubflow.cli.daemon_process import child_daemon\n"
        "with child_daemon(Path(sys.argv[1]), home=Path(sys.argv[1]) / 'home', port=0):\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        family = psutil.Process(process.pid).children(recursive=True)
        assert family
        os.kill(process.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["up", "--host", "0.0.0.0"], "--host 0.0.0.0"),
        (["up", "nowhere"], "nowhere"),
        (["up", "--port", "x"], "--port"),
        (["daemon"], "--postgres-url"),
        (["daemon", "--postgres-url", "postgres://a@b/c", "--manifest", "m"], "DAGS --manifest"),
        (["up", "--manifest", "none.json"], "none.json cannot be read"),
        (["daemon", "--roles", "cook"], "role 'cook' is unknown: roles are api, manager"),
        (["daemon", "--roles", "worker,mangaer"], "did you mean manager"),
        (["daemon", "--roles", ""], "a daemon needs a role at least"),
        (["up", "--port", "70000"], "api.port is 70000: an integer from 0 to 65535"),
    ],
)
def test_a_daemon_that_cannot_start_says_what_to_do(anywhere, tmp_path, arguments, says):
    (tmp_path / "dags").mkdir()
    answer = anywhere(*arguments, cwd=tmp_path, PUBSUBFLOW_HOME=str(tmp_path / "home"))
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert says in answer.err


def test_a_daemon_serves_on_external_servers(anywhere, servers, bare_database, tmp_path):
    """It is found by its URL, and by its home."""
    home = tmp_path / "home"
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "pubsubflow.cli.main", "daemon", "--port", "0"]
    command += ["--nats-url", servers.nats.url, "--postgres-url", bare_database]
    command += ["--ready-fd", str(writer), "--log-format", "json", "--home", str(home)]
    environ = {**os.environ, "PUBSUBFLOW__NATS__TOKEN": servers.nats.token}
    with (
        subprocess.Popen(
            command, env=environ, pass_fds=[writer], stderr=subprocess.PIPE, cwd=tmp_path
        ) as process,
        os.fdopen(reader) as ready,
    ):
        os.close(writer)
        url = ready.readline().strip()
        # Asserted after its end: an error in this block would wait for that.
        emitted = anywhere("datasets", "emit", "s3://a/b", "--server", url)
        listed = anywhere("datasets", "list", "--home", home, "--json")
        address = anywhere("nats-url", "--home", home)
        refused = anywhere("up", tmp_path, "--home", home)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0
    assert emitted.code == 0, emitted.err
    assert "s3://a/b" in listed.out, listed.err
    assert "a NATS of yours" in address.err
    assert (refused.code, f"held by process {process.pid}" in refused.err) == (2, True)
    assert b'"event": "daemon.started"' in log


def test_what_is_due_is_counted_and_removed_beside_a_daemon(anywhere, daemon_home, daemon_url):
    counted = anywhere("db", "prune", "--dry-run", "--home", daemon_home)
    assert (counted.code, counted.out) == (0, "nothing is due\n")
    pruned = anywhere("db", "prune", "--home", daemon_home, "--json")
    assert (pruned.code, pruned.json) == (0, [])
    wrong = anywhere("db", "prune", "--home", daemon_home, PUBSUBFLOW__RETENTION__EVENTS_DAYS="-1")
    assert wrong.code == 2
    assert "retention.events_days" in wrong.err
