import subprocess
import sys

import pytest

import pubsubflow


def imported_by(code: str) -> set[str]:
    code = f"import sys; {code}; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(told.stdout.split())


def test_every_public_name_is_there():
    names = {}
    exec("from pubsubflow import *", names)
    assert set(pubsubflow.__all__) <= names.keys()
    assert set(pubsubflow.__all__) == set(pubsubflow._HOME_OF)
    assert set(pubsubflow.__all__) <= set(dir(pubsubflow))
    assert sorted(pubsubflow.__all__) == sorted(set(pubsubflow.__all__))


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="'pubsubflow' has no attribute 'nobody'"):
        pubsubflow.nobody  # noqa: B018
    with pytest.raises(ImportError):
        exec("from pubsubflow import nobody")


def test_names_are_imported_when_they_are_asked_for():
    assert not any(name.startswith("pubsubflow.") for name in imported_by("import pubsubflow"))
    found = imported_by("from pubsubflow import Context, Dataset, Operator, Trigger, dag, task")
    assert found & {"asyncio", "anyio", "importlib.metadata", "pubsubflow.runner"} == set()


def test_who_imports_dag_files_has_all_names():
    found = imported_by("import pubsubflow.authoring.dag_files")
    assert {f"pubsubflow.{home}" for home in pubsubflow._HOMES} <= found
