"""How fast DAG files become known: many small files, and one that makes many DAGs."""

import asyncio
import json
import tempfile
import time
from pathlib import Path

from pubsubflow.loader import load_once

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


def _measure(root: Path) -> dict[str, float]:
    started = time.perf_counter()
    loaded = asyncio.run(load_once(root))
    seconds = time.perf_counter() - started
    assert not [file.error for file in loaded if file.error]
    return {
        "files": len(loaded),
        "dags": sum(len(file.dags) for file in loaded),
        "tasks": sum(len(dag.tasks) for file in loaded for dag in file.dags),
        "seconds": round(seconds, 3),
    }


def main() -> None:
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1000):
            Path(folder, f"flow_{number}.py").write_text(SMALL.format(number=number))
        results["thousand_files"] = _measure(Path(folder))
    for dags in (1000, 5000):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "factory.py").write_text(LARGE.format(dags=dags))
            results[f"one_file_{dags}_dags"] = _measure(Path(folder))
    print(json.dumps({"scenario": "loader", **results}))


if __name__ == "__main__":
    main()
