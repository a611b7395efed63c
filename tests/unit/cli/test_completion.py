"""Completion asks the daemon for names, soon or not at all, and is silent when there is none."""

import shutil
import socket
import subprocess
import time

import pytest

from pubsubflow.cli.main import run
from pubsubflow.cli.shell.completion import _BASH_COLONS
from support.canned_http import answer, serving

DAGS = answer(
    b'{"items": [{"dag_id": "ingest", "file": "a.py", "schedule": "@daily", "version": 1, '
    b'"revision": "1", "paused": false, "active_runs": 0, "queued_runs": 0, "present": true, '
    b'"tasks": 1}], "next": null, "import_errors": []}'
)
TASKS = answer(
    b'{"items": [{"id": "r.load.0", "run_id": "r", "dag_id": "d", "task_id": "load", "attempt": 1, '
    b'"map_index": 0, "operator": "python", "state": "failed"}], "next": null}'
)


@pytest.fixture
def candidates(monkeypatch, capfd):
    def complete(url, *words):
        monkeypatch.setenv("PUBSUBFLOW_SERVER", url)
        assert run(["__complete", *words]) == 0
        out, err = capfd.readouterr()
        assert err == ""
        return out.split("\x1fbegin\n")[1].splitlines()

    return complete


@pytest.mark.parametrize(
    ("words", "response", "request_line", "names"),
    [
        (["dags", "show", ""], DAGS, "GET /api/v1/dags?", ["ingest\t@daily"]),
        (["runs", "list", "--dag", "in"], DAGS, "GET /api/v1/dags?", ["ingest\t@daily"]),
        (["tasks", "logs", "r", ""], TASKS, "GET /api/v1/runs/r/tasks?", ["load.0\tfailed"]),
    ],
)
def test_names_are_those_of_the_daemon(candidates, words, response, request_line, names):
    with serving([response]) as (url, requests):
        assert candidates(url, *words) == names
    assert requests[0].startswith(request_line)


def test_without_a_daemon_there_are_none_and_nothing_is_said(candidates):
    assert candidates("http://127.0.0.1:9", "dags", "show", "") == []


def test_a_shell_does_not_wait_for_a_daemon_that_is_silent(candidates):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        began = time.monotonic()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert candidates(url, "datasets", "show", "") == []
        assert time.monotonic() - began < 2


def test_bash_completes_uris_after_their_colon():
    words = ["pubsubflow", "datasets", "show", "s3", ":", "//lake/o"]
    script = (
        """_pubsubflow() {
          echo "${COMP_WORDS[COMP_CWORD]}"
          COMPREPLY=(s3://lake/orders s3://lake/other)
        }"""
        + _BASH_COLONS.format(name="pubsubflow")
        + f"COMP_WORDS=({' '.join(words)}); COMP_CWORD=5\n"
        + "_pubsubflow_with_colons; echo ${COMPREPLY[@]}"
    )
    command = [shutil.which("bash"), "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("s3://lake/o\n//lake/orders //lake/other\n", "")
