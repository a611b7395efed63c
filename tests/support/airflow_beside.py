"""Airflow's DAGs through the bridge without a daemon, to compare with what Airflow does of them."""

import base64
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pubsubflow.airflow.outside.dag_files import read_file
from pubsubflow.airflow.protocol import HOSTS, BridgeSettings, encode
from pubsubflow.authoring.dag import DAG
from pubsubflow.authoring.registry import loading
from support.airflow import START, airflow_python

BUNDLE = "beside"
KIND = f"airflow:{BUNDLE}:legacy:0"
_BOTH = {
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__XCOM_BACKEND": "marked_xcom.MarkedXCom",
    "PYTHONPATH": str(Path(__file__).parent.parent / "integration/airflow/beside"),
}
"""Of the environment of either side."""


class Outcome(msgspec.Struct):
    """The end of a run.

    Attributes:
        state: Of the run.
        states: `task_id` or `task_id.index` → state.
        values: Likewise → what it has returned, as Airflow serialises it.
    """

    state: str
    states: dict[str, str]
    values: dict[str, Any]


@contextmanager
def bridge(folder: Path) -> Iterator[None]:
    """Run the host of a bundle during the block; DAG files find it by their bundle."""
    home = folder / "home"
    home.mkdir()
    settings = BridgeSettings(str(folder / f"{BUNDLE}.sock"), os.getpid())
    encoded = base64.b64encode(encode(settings)).decode()
    env = {**os.environ, **_BOTH, "AIRFLOW_HOME": str(home)}
    command = [airflow_python(), "-P", str(START), "pubsubflow.airflow.inside.host:main", encoded]
    with (
        pytest.MonkeyPatch.context() as patch,
        (folder / "host.log").open("wb") as log,
        subprocess.Popen(command, env=env, stdout=log, stderr=log) as process,
    ):
        patch.setenv(HOSTS, str(folder))
        try:
            yield
        finally:
            process.terminate()


def bridged_dags(file: Path) -> dict[str, DAG]:
    """Return the DAGs of a file, whose tasks run by the bridge."""
    with loading(file.name) as found:
        read_file(KIND, str(file.parent), str(file.parent), file.name, found)
    return found.dags


async def run_bridged(dag: DAG, **more: Any) -> Outcome:
    """Run a DAG in this process, as `DAG.test` does, its attempts inside."""
    found = await dag.atest(**more)
    states, values = {}, {}
    for each in (each for instances in found.tasks.values() for each in instances):
        name = each.task_id if each.map_index < 0 else f"{each.task_id}.{each.map_index}"
        states[name] = str(each.state.value)
        if each.value is not None:
            values[name] = each.value
    return Outcome(str(found.state.value), states, values)


class Beside:
    """DAGs of a folder that are run by Airflow's own `dag.test()`, in a process beside."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self._process = process
        self._output = output

    def outcomes(self) -> dict[str, Outcome]:
        """Wait until all have ended; return how."""
        code = self._process.wait()
        lines = self._output.read_text("utf-8", "replace").splitlines()
        assert code == 0, "\n".join(lines[-40:])
        found = [line.removeprefix("OUTCOME ") for line in lines if line.startswith("OUTCOME ")]
        decoded = [json.loads(line) for line in found]
        return {each.pop("dag_id"): msgspec.convert(each, Outcome) for each in decoded}


@contextmanager
def beside(folder: Path, home: Path) -> Iterator[Beside]:
    """Have Airflow run all DAGs of a folder during the block, on a metadata database of its own."""
    home.mkdir(exist_ok=True)
    env = {
        **os.environ,
        **_BOTH,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
    }
    command = [airflow_python(), str(START), "airflow_side:main", str(folder)]
    output = home / "output"
    with (
        output.open("wb") as file,
        subprocess.Popen(command, env=env, stdout=file, stderr=file) as process,
    ):
        try:
            yield Beside(process, output)
        finally:
            process.kill()


def differences(ours: Outcome, theirs: Outcome) -> dict[str, tuple[Any, Any]]:
    """Return what differs: name → ours, theirs."""
    found = {}
    for kind in ("states", "values"):
        here, there = getattr(ours, kind), getattr(theirs, kind)
        if kind == "states":
            there = _whole(here, there)
        for name in sorted({*here, *there}):
            if here.get(name) != there.get(name):
                found[f"{kind[:-1]} of {name}"] = here.get(name), there.get(name)
    if ours.state != theirs.state:
        found["run"] = ours.state, theirs.state
    return found


def task_of(name: str) -> str:
    """Return the task of an instance's name in an `Outcome`."""
    task_id, _, index = name.rpartition(".")
    return task_id if index.isdigit() else name


def _whole(ours: Mapping[str, str], theirs: Mapping[str, str]) -> dict[str, str]:
    """Return states in which a mapped task that has not begun is one instance, as here.

    Airflow makes the instances of a literal with the run, so all of them end alike.
    """
    found = dict(theirs)
    for name, state in ours.items():
        instances = [each for each in theirs if each != name and task_of(each) == name]
        if name not in theirs and {theirs[each] for each in instances} == {state}:
            found = {each: its for each, its in found.items() if each not in instances}
            found[name] = state
    return found
