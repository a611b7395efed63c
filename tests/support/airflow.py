"""An interpreter with Airflow, for the tests of its bridge: `make test` makes one, if it can."""

import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

import pubsubflow
from pubsubflow.airflow.structure import LoadedStructure
from tools import airflow_env

START = Path(pubsubflow.__file__).parent / "airflow" / "inside" / "start.py"
SECONDS = 300
"""How long tests wait for what Airflow's code does: importing it takes long on a busy machine."""


def give_time(patch: pytest.MonkeyPatch) -> None:
    """Give the import of a file of Airflow's as much time as tests wait for it."""
    patch.setenv("PUBSUBFLOW__LOADER__IMPORT_SECONDS", str(SECONDS))
    patch.setenv("AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT", str(SECONDS))


def airflow_python() -> str:
    """Return the interpreter, or skip the test.

    It is that of AIRFLOW_PYTHON, else that of the release AIRFLOW_RELEASE, else the newest one's.
    """
    given = os.environ.get("AIRFLOW_PYTHON")
    if given:
        return given
    release = os.environ.get("AIRFLOW_RELEASE") or airflow_env.releases()[-1]
    found = airflow_env.python_of(release)
    if found is None:
        pytest.skip(f"Airflow {release} is not there: {airflow_env.reason(release)}")
    return str(found)


def providers_python() -> str:
    """Return the interpreter that has providers, too, or skip the test."""
    given = os.environ.get("AIRFLOW_PROVIDERS_PYTHON")
    found = given or airflow_env.python_of(airflow_env.providers())
    if not found:
        why = airflow_env.reason(airflow_env.providers())
        pytest.skip(f"providers of Airflow are not there: {why}")
    return str(found)


def systems_python() -> str:
    """Return the interpreter that has the providers of system tests' files, or skip the test."""
    found = airflow_env.python_of(airflow_env.systems())
    if found is None:
        why = airflow_env.reason(airflow_env.systems())
        pytest.skip(f"providers of the system tests' files are not there: {why}")
    return str(found)


def fullest_python() -> str:
    """Return the interpreter that has most providers, of those that are there, or skip the test.

    It is that of `airflow_python` where a release or an interpreter is asked for.
    """
    asked = os.environ.get("AIRFLOW_PYTHON") or os.environ.get("AIRFLOW_RELEASE")
    if asked not in (None, airflow_env.releases()[-1]):
        return airflow_python()
    found = airflow_env.python_of(airflow_env.systems())
    return str(found) if found else airflow_python()


def run_inside(target: str, *arguments: str, home: Path, python: str | None = None) -> bytes:
    """Call a function inside, in the usual interpreter or another, and return what it prints."""
    done = subprocess.run(
        [python or airflow_python(), str(START), target, *arguments],
        capture_output=True,
        check=False,
        env=os.environ | {"AIRFLOW_HOME": str(home)},
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def structure_of(path: Path, home: Path) -> LoadedStructure:
    """Return what the import of a file makes."""
    printed = run_inside(
        "pubsubflow.airflow.inside.dump:main", str(path), str(path.parent), home=home
    )
    return msgspec.json.decode(printed.splitlines()[-1], type=LoadedStructure)


def written(folder: Path, name: str, text: str) -> Any:
    """Write a file, and return its path."""
    path = folder / name
    path.write_text(text, "utf-8")
    return path
