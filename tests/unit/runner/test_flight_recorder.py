import errno
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pubsubflow.runner import flight_recorder

PROGRAM = """
import sys, time
from pubsubflow.runner.flight_recorder import FlightRecorder

def here():
    print(flush=True)
    sys.stdin.read()

running = FlightRecorder(sys.argv[1]).running
running[0], running[5] = 7, 2**40
here()
"""


def test_what_a_killed_process_ran_can_be_read(tmp_path):
    path = tmp_path / "recorder"
    flight_recorder.prepare(path)
    assert flight_recorder.read(path) == flight_recorder.FlightRecord((), "")
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    process.stdout.readline()
    os.kill(process.pid, signal.SIGSEGV)
    process.communicate()
    recorded = flight_recorder.read(path)
    assert recorded.running == (7, 2**40)
    assert "Segmentation fault" in recorded.stack
    assert "in here" in recorded.stack


def test_the_page_takes_its_space_at_once_and_leaves_no_name(monkeypatch, tmp_path):
    recorder = flight_recorder.RunnerRecorder()
    found = Path(recorder.path).stat()
    assert (found.st_size, found.st_blocks * 512 >= flight_recorder.PAGE_BYTES) == (
        flight_recorder.PAGE_BYTES,
        True,
    )
    recorder.page[flight_recorder.RUNNING] = 7
    recorder.close()
    assert not Path(recorder.path).exists()

    def full(fd, data):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", full)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    with pytest.raises(OSError, match="full"):
        flight_recorder.RunnerRecorder()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_user_code_has_cut_or_filled_ends_no_daemon(tmp_path):
    recorder = flight_recorder.RunnerRecorder()
    recorder.page[flight_recorder.RUNNING] = 7
    with Path(recorder.path).open("r+b") as file:
        file.truncate(0)
        assert recorder.page[flight_recorder.BEGUN] == 0
        assert recorder.stack() == ""
        file.truncate(1 << 40)
        assert recorder.page[flight_recorder.RUNNING] == 0
    recorder.close()
    for size in (0, 1 << 40):
        with (tmp_path / "recorder").open("wb") as file:
            file.truncate(size)
        assert flight_recorder.read(tmp_path / "recorder").running == ()


def test_numbers_are_shared_without_a_descriptor(tmp_path):
    recorder = flight_recorder.RunnerRecorder()
    before = set(Path("/proc/self/fd").iterdir())
    numbers = flight_recorder.map_numbers(recorder.path)
    assert set(Path("/proc/self/fd").iterdir()) == before
    assert not Path(recorder.path).exists()
    numbers[flight_recorder.BEGUN] = 7
    recorder.page[flight_recorder.REVOKED_UNTIL] = 9
    assert recorder.page[flight_recorder.BEGUN] == 7
    assert numbers[flight_recorder.REVOKED_UNTIL] == 9
    recorder.close()


def test_a_file_that_cannot_be_mapped_is_named(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        flight_recorder.map_numbers(str(tmp_path / "nowhere"))
