"""What is run again after a whole run of the tests: few waits that ran out of time, no result."""

import subprocess
import sys

import pytest

from again import failures, main, repeatable

SLOW = """
from pathlib import Path

import pytest


@pytest.mark.parametrize("word", ["a b"])
def test_slow(word):
    with Path(__file__).with_name("tries").open("a") as tries:
        tries.write("x")
    if len(Path(__file__).with_name("tries").read_text()) == 1:
        raise ExceptionGroup("unhandled errors", [TimeoutError()])
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a file of tests as the whole suite is run; return the report."""
    monkeypatch.chdir(tmp_path)

    def run(text):
        (tmp_path / "pytest.ini").write_text("[pytest]\njunit_family = xunit1\n")
        (tmp_path / "test_it.py").write_text(text)
        report = tmp_path / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}"]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 1
        return report

    return run


def test_a_wait_that_ran_out_of_time_is_run_again_alone(run, capsys, tmp_path):
    report = run(SLOW)
    assert list(failures(report)) == ["test_it.py::test_slow[a b]"]
    assert main(report) == 0
    assert "test_it.py::test_slow[a b]" in capsys.readouterr().out
    assert (tmp_path / "tries").read_text() == "xx"


def test_a_wrong_result_is_not(run, monkeypatch):
    report = run("def test_wrong():\n    assert not 1\n")
    monkeypatch.setattr(sys, "executable", "/nowhere")
    assert main(report) == 1


@pytest.mark.parametrize(
    "failed",
    [
        {},
        {"tests/unit/test_a.py::test_a": "assert 1 == 2"},
        {"tests/unit/test_a.py::test_a": "TimeoutError", "tests/unit/test_b.py::test_b": "assert"},
        {"tests/faults/test_a.py::test_a": "TimeoutError"},
        {f"tests/unit/test_{n}.py::test": "TimeoutError" for n in range(4)},
    ],
)
def test_many_others_and_campaigns_are_not(failed):
    assert not repeatable(failed)
