"""The status line of long work: on a terminal, on stderr, and gone in the end."""

import os
import pty
import subprocess
import sys
from types import SimpleNamespace

import pytest

from pubsubflow.cli import status_line
from pubsubflow.cli.status_line import StatusLine


class Terminal:
    def __init__(self):
        self.text = ""

    def isatty(self):
        return True

    def write(self, text):
        self.text += text

    def flush(self):
        pass


@pytest.fixture
def terminal(monkeypatch):
    made = Terminal()
    monkeypatch.setattr(status_line, "sys", SimpleNamespace(stderr=made))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    return made


def test_it_shows_a_bar_and_is_removed(terminal):
    with StatusLine() as line:
        line.show("files\x1b[2J", 1, 4)
        line.show("too soon", 2, 4)
        line.show("files", 4, 4)
    first, last, end = terminal.text.split("\x1b[K")[:3]
    assert first == f"\r{'█' * 5}{'░' * 15} 1 of 4  files\\x1b[2J"
    assert last == f"\r{'█' * 20} 4 of 4  files"
    assert end == "\r"


def test_it_is_cut_to_the_terminal(terminal):
    with StatusLine() as line:
        line.show("x" * 200)
    assert terminal.text.startswith("\r" + "x" * 59 + status_line._ERASE)


def test_nothing_is_written_where_no_terminal_is(capfd):
    with StatusLine() as line:
        line.show("text", 1, 2)
    assert capfd.readouterr() == ("", "")


def test_dags_check_shows_how_far_it_is(tmp_path):
    (tmp_path / "one.py").write_text("")
    main, other = pty.openpty()
    command = [sys.executable, "-m", "pubsubflow.cli.main", "dags", "check", str(tmp_path)]
    environ = {**os.environ, "TERM": "xterm"}
    with os.fdopen(other, "wb", buffering=0) as stderr:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=stderr, env=environ, check=True, text=True
        )
        shown = os.read(main, 10_000).decode()
    os.close(main)
    assert f"\r{'█' * 20} 1 of 1  DAG files imported" in shown
    assert shown.endswith(f"\r{status_line._ERASE}")
    assert "█" not in done.stdout
    assert "one.py" in done.stdout
