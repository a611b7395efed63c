"""Edits: from the save of a DAG file until a run has the new version, alone and among many files.

The floor is the import of that file in a fresh interpreter.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import figure, spread
from benchmarks.loader import SMALL
from benchmarks.stack import Stack, repeat

FILES = 1_000
EDITS = 7
_DATASET = "bench://edited"
_EVENT_SECONDS = 0.02
_REST_SECONDS = 1.0
_TEXT = """
import os
import time

from pubsubflow import Dataset, dag, task


@dag(schedule=Dataset("{dataset}"), max_active_runs=1000)
def edited():
    @task
    async def tell() -> None:
        with open(os.environ["BENCH_LOG"], "a") as log:
            log.write(f"{{time.time():.6f}} version {number}\\n")

    tell()


edited()
"""


def _write(file: Path, number: int) -> None:
    draft = file.with_suffix(".draft")
    draft.write_text(_TEXT.format(dataset=_DATASET, number=number))
    draft.replace(file)


def _edit(stack: Stack, file: Path, number: int) -> float:
    """Save a version; return the seconds until the first line of a run of it."""
    time.sleep(_REST_SECONDS)
    stack.moments.clear()
    saved = time.time()
    _write(file, number)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        stack.emit(_DATASET)
        for moment, _, version in stack.moments.wait(1):
            if version == str(number):
                return moment - saved
        time.sleep(_EVENT_SECONDS)
    raise TimeoutError(f"version {number} is not in force after 60 s")


def _edits(others: int) -> tuple[list[float], list[float]]:
    """Return the seconds of each edit, and of each import of the file."""
    with tempfile.TemporaryDirectory(prefix="psf-bench-") as text:
        folder = Path(text)
        file = folder / "edited.py"
        _write(file, 0)
        for number in range(others):
            (folder / f"flow_{number}.py").write_text(SMALL.format(number=number))
        with Stack(folder) as stack:
            edits = [_edit(stack, file, number + 1) for number in range(EDITS)]
        imports = repeat(EDITS, lambda: _import(file))
    return edits, imports


def _import(file: Path) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, file], check=True)
    return time.perf_counter() - started


def run() -> list[dict[str, Any]]:
    """Measure."""
    found = []
    for others, text in ((0, "alone"), (FILES, f"among {FILES:,} files")):
        edits, imports = _edits(others)
        values, floor = spread(edits, 3), spread(imports, 3)
        name = f"a file is saved → first line of its new version, p50, {text}"
        more = {"spread": values, "floor": floor["p50"]}
        found.append(figure(name, values["p50"], "s", target=0.6, **more))
    return found
