"""Pauses of the garbage collector are noted by an interpreter that is told where."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks import hop_costs

FOLDER = Path(hop_costs.__file__).parent / "gc_pauses"


def test_an_interpreter_notes_its_collections(tmp_path):
    file = tmp_path / "pauses"
    environ = os.environ | {"PYTHONPATH": str(FOLDER), "BENCH_PAUSES": str(file)}
    program = "import gc, os; gc.disable(); gc.collect(); print(os.getpid())"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, check=True, text=True
    )
    pauses = hop_costs.pauses_of(int(done.stdout), file)
    assert pauses
    assert all(pause >= 0 for pause in pauses)
    assert hop_costs.pauses_of(0, file) == []
