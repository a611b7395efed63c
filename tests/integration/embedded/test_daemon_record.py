"""Records of the daemons of a home: of those that were killed the names are found, once."""

import stat
import subprocess
import sys

import pytest

from pubsubflow.embedded import daemon_record
from pubsubflow.embedded.daemon_record import FOLDER, DaemonRecord

HOLDER = """
import sys, time
from pathlib import Path
from pubsubflow.embedded.daemon_record import DaemonRecord
with DaemonRecord.open(Path(sys.argv[1])) as record:
    for name in sys.argv[2:]:
        record.add(name)
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def start(tmp_path):
    """Start processes with names on the home; they are killed at the end."""
    started = []

    def start(*names):
        command = [sys.executable, "-c", HOLDER, str(tmp_path), *names]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        kill(process)


def kill(process):
    process.kill()
    process.wait()
    process.stdout.close()


def found(home):
    with DaemonRecord.open(home) as record, record.killed() as names:
        return names


def test_names_of_killed_daemons_are_found_once(start, tmp_path):
    kill(start("one", "two"))
    start("lives")
    kill(start("three"))
    assert sorted(found(tmp_path)) == ["one", "three", "two"]
    assert found(tmp_path) == []


def fail(home):
    with DaemonRecord.open(home) as record, record.killed() as names:
        assert names == ["one"]
        raise OSError("the bus is away")


def test_they_are_found_again_if_the_first_one_fails(start, tmp_path):
    kill(start("one"))
    with pytest.raises(OSError, match="away"):
        fail(tmp_path)
    assert found(tmp_path) == ["one"]


def test_two_that_start_side_by_side_do_not_both_find_them(start, tmp_path):
    kill(start("one"))
    with (
        DaemonRecord.open(tmp_path) as record,
        DaemonRecord.open(tmp_path) as other,
        record.killed() as names,
        other.killed() as others,
    ):
        assert (names, others) == (["one"], [])


def test_those_of_another_machine_are_left_alone(start, tmp_path, monkeypatch):
    kill(start("one"))
    monkeypatch.setattr(daemon_record.socket, "gethostname", lambda: "elsewhere")
    assert found(tmp_path) == []
    monkeypatch.undo()
    assert found(tmp_path) == ["one"]


def test_a_home_that_is_made_for_it_is_private(tmp_path):
    home = tmp_path / "new" / "home"
    with DaemonRecord.open(home):
        assert [stat.S_IMODE(each.stat().st_mode) for each in (home, home / FOLDER)] == [0o700] * 2


def test_a_record_ends_with_its_daemon(tmp_path):
    with DaemonRecord.open(tmp_path) as record:
        record.add("one")
        assert len([*(tmp_path / FOLDER).iterdir()]) == 1
    assert not [*(tmp_path / FOLDER).iterdir()]


def test_a_home_that_cannot_be_written_has_no_record(tmp_path):
    (tmp_path / FOLDER).write_text("a file in the place of the folder")
    with DaemonRecord.open(tmp_path) as record:
        assert record is None
