"""Targets of child calls in tests: user code that leaves processes behind."""

import subprocess
import time
from collections.abc import Iterator

import msgspec


def leave_many(argument: bytes) -> Iterator[list[int]]:
    """Leave many children behind: clearing up after them takes a moment."""
    yield [subprocess.Popen(["sleep", "1000"]).pid for _ in range(msgspec.json.decode(argument))]


def leave_children(argument: bytes) -> Iterator[list[int]]:
    """Leave children behind, one of them in a session of its own; hang if that is asked for."""
    own = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    detached = subprocess.check_output("setsid sleep 1000 >/dev/null & echo $!", shell=True)
    yield [own.pid, int(detached)]
    if msgspec.json.decode(argument):
        time.sleep(1000)
