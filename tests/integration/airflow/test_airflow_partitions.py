"""Partition keys map here as by Airflow's own mappers, which map the same keys beside."""

import json
from pathlib import Path

from pubsubflow.airflow.outside.build import build_dag
from pubsubflow.airflow.outside.place import BundlePlace
from pubsubflow.authoring.registry import loading
from pubsubflow.errors import InvalidInput
from pubsubflow.model.schedule.partitions import keys_of, map_key, rolls_up
from support.airflow import airflow_python, run_inside, structure_of

BESIDE = Path(__file__).with_name("beside")
FILE = BESIDE / "dags" / "partitioned.py"
KEYS = (
    "us", "eu", "pl", "2024-03-10", "2024-02-01", "2024-12-31", "2023-01-01", "2026-05-04",
    "2024-03-10T02", "2024-03-10T01", "2024-11-03T01", "2024-03-13T10:42:15",
    "2024-12-30T00:00:00", "2024-03-10T02:30:00", "2024-03-13T20:00:00+00:00",
    "us|2024-03-13T10:42:15", "2024-03-13/a/us", "2024-03-13/a/eu", "a/b", "2024-13-45",
)  # fmt: skip


def mapped_here(mapper, key):
    try:
        runs = [run for run, _ in map_key(mapper, key)]
    except InvalidInput:
        return {}
    return {run: sorted(set(keys_of(mapper, run))) if rolls_up(mapper) else None for run in runs}


def test_keys_map_as_by_airflow(tmp_path, monkeypatch):
    airflow_python()
    monkeypatch.setenv("PYTHONPATH", str(BESIDE))
    printed = run_inside("partitions_side:main", str(FILE), *KEYS, home=tmp_path)
    theirs = json.loads(printed.splitlines()[-1])
    found = structure_of(FILE, tmp_path)
    assert found.error is None, found.traceback
    place = BundlePlace("team", legacy=True, folder="/b", root="/d", file="flow.py")
    with loading("flow.py"):
        mappers = {
            dag.dag_id.removeprefix("by_"): build_dag(dag, place).schedule.partitioning.by
            for dag in found.dags
        }
    assert mappers.keys() == theirs.keys()
    compared = 0
    for name, mapper in mappers.items():
        for key, runs in theirs[name].items():
            # A key that its run does not need starts none; Airflow notes it, and waits on.
            expected = {run: needed for run, needed in runs.items() if not needed or key in needed}
            assert mapped_here(mapper, key) == expected, (name, key)
            compared += len(runs)
    # Airflow 3.2 has eleven mappers, none of which rolls up or fans out.
    assert compared > (200 if len(mappers) > 11 else 40)
