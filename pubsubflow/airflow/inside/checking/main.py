"""The process that checks a folder: imports Airflow once, and loads each file in a child.

It reads a `FolderRequest` from stdin and writes lines of JSON to stdout: the surroundings first,
then what was found in each file, as soon as it is known.
"""

import importlib
import logging
import os
import sys
import time
import warnings
from pathlib import Path

import msgspec

from pubsubflow.airflow.findings import FolderRequest
from pubsubflow.airflow.inside.checking.children import Children
from pubsubflow.airflow.inside.checking.surroundings import surroundings_of
from pubsubflow.airflow.inside.files import find_files

# What most files import, and what the SDK imports when it is used first.
_USUAL = (
    "airflow.sdk.execution_time.context",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.providers.standard.operators.bash",
    "airflow.providers.standard.operators.empty",
    "airflow.providers.standard.operators.python",
    "airflow.providers.standard.sensors.external_task",
    "pubsubflow.airflow.inside.structures",
)


def main() -> None:
    """Check the files that stdin names."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=FolderRequest)
    # What Airflow and the files print must not get between the lines.
    output = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    started = time.monotonic()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    # Here and not in each child, which is forked with them.
    for name in _USUAL:
        importlib.import_module(name)
    files = find_files(request.place)
    surroundings = surroundings_of(request, files, time.monotonic() - started)
    output.write(msgspec.json.encode(surroundings) + b"\n")
    output.flush()
    root = str(Path(request.root).resolve())
    for found in Children(request, root, jobs=os.cpu_count() or 1).check(files):
        output.write(msgspec.json.encode(found) + b"\n")
        output.flush()
