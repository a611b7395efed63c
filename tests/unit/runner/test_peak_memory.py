"""The peak of a process' memory, task by task."""

import sys

import pytest

from pubsubflow.runner.limits import PeakMemory

LARGE = 256 << 20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")


def test_each_task_has_a_peak_of_its_own():
    peak = PeakMemory()
    peak.restart()
    before = peak.read()
    for _ in range(3):
        block = bytearray(LARGE)
        block[::4096] = b"x" * len(block[::4096])
        del block
        assert peak.read() > before + LARGE // 2
        # However soon the next one follows: the last one has raised the peak.
        peak.restart()
        assert peak.read() < before + LARGE // 2


def test_a_task_that_needs_no_more_than_the_last_one_has_the_peak_of_its_process():
    peak = PeakMemory()
    for _ in range(3):
        peak.restart()
        assert peak.read() > 1 << 20
