"""Interpreters that do not fit are refused with what to do; export files of Airflow are read."""

import os
import sys
from pathlib import Path

import pytest

from pubsubflow.airflow.outside.environments import environment_python
from pubsubflow.airflow.outside.hosts import find_bundles
from pubsubflow.airflow.outside.interpreter import find_python, probe
from pubsubflow.airflow.outside.settings import AirflowBundleSettings
from pubsubflow.airflow.transfer.exports import read_connections, read_pools, read_variables
from pubsubflow.cli.main import run
from pubsubflow.errors import ConfigError, InvalidInput
from pubsubflow.runner.task_account import TaskAccount

JSON = r"""{"dw": {"conn_type": "postgres", "host": "db", "login": "ann", "password": "p/w",
  "schema": "sales", "port": 5432, "extra": "{\"a\": \"1\"}", "description": null}}"""


def test_an_interpreter_without_airflow():
    with pytest.raises(ConfigError, match=r"has no Airflow of version 3: .*-m pip install"):
        probe(sys.executable)


PROBES = [
    ('"apache-airflow-core": null', r"has no Airflow of version 3: .*-m pip install"),
    ('"apache-airflow-core": "3.1.8"', r"has Airflow 3\.1\.8, and at least 3\.2 is needed"),
    ('"apache-airflow-core": "3.2.0", "msgspec": null', "has no msgspec: .*pip install msgspec"),
]


@pytest.mark.parametrize(("versions", "message"), PROBES)
def test_a_bundle_whose_interpreter_lacks_something_is_refused(tmp_path, versions, message):
    python = tmp_path / "python"
    known = '"msgspec": "0.20", "apache-airflow-task-sdk": "1.2",'
    answer = f'{{"python": "3.12.1", "fingerprint": "f", "versions": {{{known} {versions}}}}}'
    python.write_text(f"#!/bin/sh\necho '{answer}'\n")
    python.chmod(0o755)
    settings = AirflowBundleSettings(kind="airflow", python=python)
    with pytest.raises(ConfigError, match=rf"^configuration: bundles\.team\.python: .*{message}"):
        find_bundles({"team": settings}, tmp_path, None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's daemon has another account for tasks")
def test_an_interpreter_that_the_account_of_tasks_cannot_read(tmp_path):
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    tmp_path.chmod(0o700)
    settings = AirflowBundleSettings(kind="airflow", python=python)
    account = TaskAccount("nobody", 65534, 65534, "/", str(tmp_path))
    with pytest.raises(ConfigError, match=r"user 65534.*: move it to where"):
        find_bundles({"team": settings}, tmp_path, account)


def test_a_bundle_with_a_name_that_no_queue_may_have(tmp_path):
    with pytest.raises(ConfigError, match=r"bundles\.a\.b: a name may hold"):
        find_bundles({"a.b": AirflowBundleSettings(kind="airflow")}, tmp_path, None)


def test_no_interpreter():
    with pytest.raises(ConfigError, match="cannot be started: No such file"):
        probe("/no/such/python")


def test_a_program_that_is_not_python():
    with pytest.raises(ConfigError, match=r"is not an interpreter of Python 3\.11 or newer"):
        probe("/bin/true")


def test_no_airflow_on_the_path(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="name it by --python"):
        find_python()
    bundle = AirflowBundleSettings(kind="airflow")
    with pytest.raises(ConfigError, match=r"name it by bundles\.team\.python, or .*requirements"):
        find_bundles({"team": bundle}, tmp_path, None)


@pytest.fixture
def installer(monkeypatch, tmp_path):
    """An installer that makes what uv makes, counts its calls, and fails on demand."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    (tmp_path / "bin").mkdir()
    uv = tmp_path / "bin" / "uv"
    uv.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {tmp_path}/calls\n'
        'if [ "$1" = venv ]; then mkdir -p "$5/bin"; touch "$5/bin/python"; fi\n'
        f'if [ "$1" = pip ] && [ -e {tmp_path}/fail ]; then\n'
        '  echo "error: no such distribution: airflou" >&2; exit 1\nfi\n'
    )
    uv.chmod(0o755)
    return tmp_path


def test_an_environment_is_made_once_for_a_file_of_requirements(installer):
    file = written(installer, "airflow.txt", "apache-airflow==3.3.2\n")
    folder = installer / "environments"
    (installer / "fail").touch()
    with pytest.raises(ConfigError, match="no such distribution: airflou"):
        environment_python(file, folder)
    (installer / "fail").unlink()
    made = environment_python(file, folder)
    assert environment_python(file, folder) == made
    calls = (installer / "calls").read_text().splitlines()
    # Made anew after the failure, and then left.
    assert [call.split()[0] for call in calls] == ["venv", "pip", "venv", "pip"]
    assert calls[-1].endswith(f"-r {file} msgspec")
    written(installer, "airflow.txt", "apache-airflow==3.2.2\n")
    assert environment_python(file, folder) != made


def test_an_environment_is_made_anew_when_a_file_that_is_named_in_it_changes(installer):
    file = written(installer, "airflow.txt", "-c pins.txt\n-r airflow.txt\napache-airflow\n")
    folder = installer / "environments"
    with pytest.raises(ConfigError, match=r"pins\.txt cannot be read"):
        environment_python(file, folder)
    written(installer, "pins.txt", "apache-airflow==3.3.2\n")
    made = environment_python(file, folder)
    written(installer, "pins.txt", "apache-airflow==3.2.2\n")
    assert environment_python(file, folder) != made


def test_requirements_of_a_bundle(installer, capsys):
    file = written(installer, "airflow.txt", "airflou==1\n")
    (installer / "fail").touch()
    bundle = AirflowBundleSettings(kind="airflow", requirements=file)
    said = (
        rf"^configuration: bundles\.team\.requirements: {file} cannot be installed: error: no such"
    )
    with pytest.raises(ConfigError, match=said):
        find_bundles({"team": bundle}, installer, None)
    assert "airflow.installing" in capsys.readouterr().out
    both = AirflowBundleSettings(kind="airflow", requirements=file, python=Path("python"))
    with pytest.raises(ConfigError, match="one of them is enough"):
        find_bundles({"team": both}, installer, None)


def test_a_file_of_requirements_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        environment_python(tmp_path / "none.txt", tmp_path)


def test_a_wrong_call_has_its_own_exit_code(capsys, tmp_path):
    assert run(["airflow", "check", str(tmp_path), "--python", "/no/such/python"]) == 2
    assert "cannot be started" in capsys.readouterr().err


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_variables(tmp_path):
    text = '{"a": "x", "b": {"c": 1}, "d": {"value": [1], "description": "list"}, "e": 3}'
    found = read_variables(written(tmp_path, "variables.json", text))
    assert found["d"].description == "list"
    assert {name: each.text for name, each in found.items()} == {
        "a": "x",
        "b": '{"c":1}',
        "d": "[1]",
        "e": "3",
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "c.json",
            JSON,
        ),
        ("c.env", "# all\n\ndw=postgresql://ann:p%2Fw@db:5432/sales?a=1\n"),
        ("c.env", "export AIRFLOW_CONN_DW='postgres://ann:p%2Fw@db:5432/sales?a=1'\n"),
    ],
)
def test_connections(tmp_path, name, text):
    (found,) = read_connections(written(tmp_path, name, text)).items()
    extra = found[1].pop("extra")
    assert extra.replace(" ", "") == '{"a":"1"}'
    assert found == (
        "dw",
        {
            "conn_type": "postgres",
            "host": "db",
            "login": "ann",
            "password": "p/w",
            "schema": "sales",
            "port": 5432,
        },
    )


def test_pools(tmp_path):
    text = '{"db": {"slots": 3, "description": "", "include_deferred": true, "team_name": "x"}}'
    assert read_pools(written(tmp_path, "pools.json", text))["db"].slots == 3


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (read_variables, "[1]", "holds no object of names"),
        (read_variables, "{", "is not JSON"),
        (read_connections, '{"a": {"host": "x"}}', "has no conn_type"),
        (read_pools, '{"a": {}}', "is not an export of Airflow's pools"),
    ],
)
def test_a_file_of_another_kind(tmp_path, read, text, message):
    with pytest.raises(InvalidInput, match=message):
        read(written(tmp_path, "x.json", text))


def test_a_line_that_is_none(tmp_path):
    with pytest.raises(InvalidInput, match="a line is NAME=URI"):
        read_connections(written(tmp_path, "x.env", "just text"))
