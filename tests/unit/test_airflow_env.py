"""Environments with Airflow for tests: made once, and where they cannot be, the reason is kept."""

import sys
from pathlib import Path

import pytest

from tools import airflow_env
from tools.airflow_env import NotMadeError, main, make, place, python_of, reason, releases


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(airflow_env, "REQUIREMENTS", tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    (tmp_path / "venv").mkdir()
    return tmp_path


def test_the_pins_are_names_and_versions_alone():
    for release in releases():
        lines = (airflow_env.REQUIREMENTS / f"{release}.txt").read_text().splitlines()
        pins = [line for line in lines if not line.startswith("#")]
        assert all(len(pin.split("==")) == 2 for pin in pins)
        assert f"apache-airflow-core=={release}" in pins
        assert any(pin.startswith("msgspec==") for pin in pins)


def test_an_environment_is_kept_for_its_requirements(folder):
    for release in ("3.10.0", "3.9.1"):
        (folder / f"{release}.txt").write_text("# nothing\n")
    assert releases() == ["3.9.1", "3.10.0"]
    before = place("3.9.1")
    before.mkdir()
    (before / ".complete").touch()
    assert python_of("3.9.1") == before / "bin" / "python"
    make("3.9.1", 0.0)  # it is there
    (folder / "3.9.1.txt").write_text("six==1.16.0\n")
    assert place("3.9.1") != before
    assert python_of("3.9.1") is None


def test_providers_lie_over_the_environment_of_the_release(folder, monkeypatch):
    (folder / "3.9.1.txt").write_text("# nothing\n")
    (folder / "providers").mkdir()
    (folder / "providers" / "3.9.1.txt").write_text("slack_sdk==3.48.0\n")
    name = airflow_env.providers()
    before = place(name)
    with pytest.raises(NotMadeError, match="is not there"):
        make(name, None)
    (folder / "3.9.1.txt").write_text("six==1.16.0\n")
    assert place(name) != before
    monkeypatch.setattr(airflow_env, "_run", lambda *_: None)
    monkeypatch.setattr(airflow_env.shutil, "rmtree", lambda *_, **__: None)
    packages = place(name).joinpath(*place_of_packages())
    packages.mkdir(parents=True)
    place("3.9.1").mkdir()
    assert main(["--providers"]) == 0
    assert (packages / "airflow.pth").read_text().startswith(str(place("3.9.1")))
    assert python_of(name) is not None


def test_what_system_tests_need_lies_over_both(folder, monkeypatch):
    for name in ("", "providers", "systems"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "3.9.1.txt").write_text(f"# {name}\n")
    monkeypatch.setattr(airflow_env, "_run", lambda *_: None)
    monkeypatch.setattr(airflow_env.shutil, "rmtree", lambda *_, **__: None)
    names = [airflow_env.systems(), airflow_env.providers(), "3.9.1"]
    for name in names:
        place(name).joinpath(*place_of_packages()).mkdir(parents=True)
    assert main(["--systems"]) == 0
    found = place(names[0]).joinpath(*place_of_packages(), "airflow.pth").read_text()
    assert [Path(line).parents[2] for line in found.splitlines()] == list(map(place, names[1:]))


def test_an_environment_changes_with_all_that_it_lies_over(folder):
    for name in ("", "providers", "systems"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "3.9.1.txt").write_text("# nothing\n")
    before = place("systems/3.9.1")
    (folder / "3.9.1.txt").write_text("six==1.16.0\n")
    assert place("systems/3.9.1") != before


def place_of_packages():
    return "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages"


def test_what_cannot_be_installed_in_time_is_said(folder):
    (folder / "3.9.1.txt").write_text("# nothing\n")
    assert "make test" in reason("3.9.1")
    with pytest.raises(NotMadeError):
        make("3.9.1", 0.0)
    assert "takes longer than 60 s" in reason("3.9.1")


def test_what_cannot_be_had_is_said_and_fails_where_all_is_wanted(folder, monkeypatch, capsys):
    (folder / "3.9.1.txt").write_text("# nothing\n")
    error = 'import sys; sys.exit("ERROR: No matching distribution found for airflow")'
    monkeypatch.setattr(airflow_env, "_run", _failing(error, airflow_env._run))
    assert main(["3.9.1"]) == 0
    assert main(["--all"]) == 1
    text = "ERROR: No matching distribution found for airflow"
    assert capsys.readouterr().out.count(f"no tests with Airflow 3.9.1: {text}") == 2
    assert reason("3.9.1") == text
    assert not place("3.9.1").exists()


def _failing(code, run):
    return lambda _, end: run([sys.executable, "-S", "-c", code], end)
