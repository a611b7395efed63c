"""The system tests' files of Airflow's providers are taken out of source distributions."""

import tarfile

import pytest

from tools import airflow_systems
from tools.airflow_systems import NotFetchedError, distributions, fetch, fetched, main

ROOT = "apache_airflow_providers_http-1.0.0"
INSIDE = f"{ROOT}/tests/system/http/example_http.py"


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A provider of ours alone, whose archive is there without a download."""
    monkeypatch.setattr(airflow_systems, "PROVIDERS", ("http",))
    monkeypatch.setattr(airflow_systems, "folder", lambda: tmp_path / "kept")

    def download(made):
        for name in (INSIDE, f"{ROOT}/tests/unit/test_http.py", f"{ROOT}/src/http.py"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("pass\n")
        with tarfile.open(f"{made}/{ROOT}.tar.gz", "w:gz") as archive:
            archive.add(tmp_path / ROOT, ROOT)

    monkeypatch.setattr(airflow_systems, "_download", download)
    return tmp_path


def test_each_provider_is_pinned_in_the_environment_that_loads_its_files():
    found = distributions()
    assert len(found) == len(airflow_systems.PROVIDERS) == 20
    assert all(len(each.split("==")) == 2 for each in found)


def test_files_of_system_tests_alone_are_kept(work):
    assert fetched() is None
    fetch()
    assert fetched() == work / "kept"
    files = [str(each.relative_to(work / "kept")) for each in (work / "kept").rglob("*.py")]
    assert files == ["http/system/http/example_http.py"]


def test_they_are_fetched_once(work, monkeypatch):
    fetch()
    monkeypatch.setattr(airflow_systems, "_download", None)
    fetch()


def test_what_cannot_be_had_is_said(work, monkeypatch, capsys):
    def refuse(_made):
        raise NotFetchedError("ERROR: No matching distribution found")

    monkeypatch.setattr(airflow_systems, "_download", refuse)
    assert main() == 0
    assert "ERROR: No matching distribution found" in capsys.readouterr().out
    assert fetched() is None
