"""Loader: how soon DAGs are known, from many small files and from one that makes many."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import figure
from benchmarks.stack import Stack

SMALL = """
from pubsubflow import Dataset, dag, task

source = Dataset("s3://lake/source-{number}")
target = Dataset("s3://lake/target-{number}")

@dag(schedule=source)
def flow_{number}():
    @task(outlets=[target])
    def copy() -> int:
        return 1
    copy()
"""

LARGE = """
from pubsubflow import DAG, Dataset, task

@task
def step(value: int) -> int:
    return value + 1

for number in range({dags}):
    with DAG(f"made_{{number}}", schedule=Dataset(f"s3://lake/made-{{number}}")):
        value = step(0)
        for _ in range(4):
            value = step(value)
"""


FACTORY = Path(__file__).parents[1] / "examples" / "factory"


def _known(folder: Path, dags: int) -> float:
    """Return how long a daemon takes from its first start until it knows all DAGs."""
    with Stack(folder) as stack:
        found = stack.get("/dags?limit=1000")["items"]
        assert len(found) == min(dags, 1000), len(found)
        assert not [dag for dag in found if dag["import_error"]]
        return stack.ready_seconds


def _unchanged(folder: Path) -> float:
    """Return the share of a core that an unchanged folder costs, in percent."""
    with Stack(folder) as stack:
        time.sleep(5)
        before = stack.cpu_seconds()
        time.sleep(15)
        return 100 * (stack.cpu_seconds() - before) / 15


def run() -> list[dict[str, Any]]:
    """Measure."""
    with tempfile.TemporaryDirectory() as many, tempfile.TemporaryDirectory() as one:
        for number in range(1000):
            Path(many, f"flow_{number}.py").write_text(SMALL.format(number=number))
        Path(one, "factory.py").write_text(LARGE.format(dags=1000))
        files = statistics.median(_known(Path(many), 1000) for _ in range(3))
        made = statistics.median(_known(Path(one), 1000) for _ in range(3))
        talk = statistics.median(_known(FACTORY, 1000) for _ in range(3))
        idle = _unchanged(Path(many))
    return [
        figure("first start → 1,000 files with a DAG each known", round(files, 2), "s", target=15),
        figure(
            "first start → 1,000 DAGs x 5 tasks of one file known", round(made, 2), "s", target=1.5
        ),
        figure("first start → 1,000 DAGs of examples/factory known", round(talk, 2), "s", target=5),
        figure("1,000 unchanged files, share of a core", round(idle, 2), "%", target=1),
    ]
