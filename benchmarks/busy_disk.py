"""Busy disk: hops while another process writes to the same disk and flushes without pause.

Their floor is measured in turn with them, under the same writes.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks import floor
from benchmarks.figures import figure, spread
from benchmarks.hot_path import hop
from benchmarks.stack import Stack

BLOCKS, BLOCK = 10, 20
_WRITES = """
import os, sys
block = os.urandom(1 << 20)
with open(sys.argv[1], "wb", buffering=0) as file:
    while True:
        file.seek(0)
        for _ in range(8):
            file.write(block)
        os.fsync(file.fileno())
"""


@contextmanager
def writes(stack: Stack) -> Iterator[None]:
    """Write 8 MiB and flush them, again and again, in the folder of a stack."""
    file = str(stack.folder / "busy")
    process = subprocess.Popen([sys.executable, "-c", _WRITES, file], env=os.environ)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _measure(stack: Stack) -> tuple[dict[str, float], dict[str, float]]:
    """Return the milliseconds of hops and of their floor."""
    hops: list[float] = []
    floors: list[float] = []
    with floor.opened(stack) as bare_hops:
        for block in range(BLOCKS + 1):
            measured, bare = [hop(stack, "sync") for _ in range(BLOCK)], bare_hops(BLOCK)
            if block:  # the first one warms up
                hops += measured
                floors += bare
    return spread(hops), spread(floors)


def run() -> list[dict[str, Any]]:
    """Measure."""
    found = []
    with Stack() as stack:
        quiet, bare = _measure(stack)
        with writes(stack):
            busy, busy_bare = _measure(stack)
    for text, hops, least, targets in (
        ("a quiet disk", quiet, bare, (5, 20)),
        ("a busy disk", busy, busy_bare, (40, 150)),
    ):
        for part, target in zip(("p50", "p99"), targets, strict=True):
            name = f"task end → next DAG's first line, {part}, {text}"
            more = {"spread": hops, "floor": least[part]}
            found.append(figure(name, hops[part], "ms", target=target, **more))
    return found
