"""Airflow's files are checked and run without a daemon, in the interpreter of their bundle."""

import subprocess
import sys
from pathlib import Path

from support.airflow import airflow_python

FILE = """
from airflow.sdk import Asset, dag, task
from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync

@dag(schedule=None, params={"n": 2})
def flow():
    @task(outlets=[Asset("s3://lake/x")])
    def double(params=None):
        return 2 * params["n"]

    DateTimeSensorAsync(task_id="past", target_time="2020-01-01T00:00:00+00:00") >> double()

flow()
"""


def command(folder, *words):
    done = subprocess.run(
        [Path(sys.executable).with_name("pubsubflow"), *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_dag_is_run_here(tmp_path):
    (tmp_path / "dags").mkdir()
    (tmp_path / "legacy").mkdir()
    (tmp_path / "legacy" / "flow.py").write_text(FILE)
    (tmp_path / "pubsubflow.toml").write_text(
        f'home = "{tmp_path}/home"\n[bundles.team]\nkind = "airflow"\npath = "{tmp_path}/legacy"\n'
        f'python = "{airflow_python()}"\n'
    )
    code, said = command(tmp_path, "dags", "test", "flow", "-p", "n=4")
    assert code == 0, said
    assert "emitted s3://lake/x" in said
    assert [line.split() for line in said.splitlines() if line.startswith("double")] == [
        ["double", "success", "1", "8"]
    ]
    (tmp_path / "legacy" / "flow.py").write_text("from airflow.sdk import dags\n")
    code, said = command(tmp_path, "dags", "check")
    assert code == 1
    assert "team/flow.py" in said
    assert "cannot import name 'dags'" in said
