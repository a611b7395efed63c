"""Commands on DAG files alone: a new project, runs in this process, manifests."""

import json
import subprocess
import sys

import pytest

BROKEN = "from pubsubflow import nothing\n"


@pytest.fixture(scope="module")
def project(call, tmp_path_factory):
    folder = tmp_path_factory.mktemp("init") / "Sales Team"
    made = call("init", folder, "--json").json
    assert all((folder / path).is_file() for path in made["files"])
    return folder


def test_a_new_project_is_whole_and_its_test_passes(project, anywhere):
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ended.returncode, "1 passed" in ended.stdout) == (0, True), ended.stdout
    assert 'name = "sales-team"' in (project / "pyproject.toml").read_text()
    assert anywhere("dags", "check", cwd=project).code == 0
    again = anywhere("init", project)
    assert (again.code, again.err.count("\n")) == (2, 1)
    assert "pyproject.toml" in again.err


def test_a_dag_runs_in_this_process(project, anywhere):
    shown = anywhere("dags", "test", "ingest", "-p", "rows=5", cwd=project)
    assert (shown.code, shown.err) == (0, "")
    assert 'emitted file:///lake/orders {"rows":5}' in shown.out
    assert shown.out.endswith("ingest success\n")
    report = ("dags", "test", "build_report", "--dags", project / "dags")
    event = ("--event", 'file:///lake/orders={"rows": 2}')
    whole = anywhere(*report, *event, *event, "--json")
    assert [task["result"] for task in whole.json["tasks"]] == [4, "4 rows"]
    assert whole.err == "4 rows in the report\n"


def test_a_task_runs_alone_with_the_results_that_it_needs(project, anywhere):
    alone = ("tasks", "test", "build_report", "publish")
    assert "3 rows" in anywhere(*alone, "--result", "add_up=3", cwd=project).out
    wanting = anywhere(*alone, cwd=project)
    assert (wanting.code, "add_up" in wanting.err) == (2, True)


def test_what_cannot_run_here_is_named(project, anywhere, tmp_path):
    for arguments, code, says in [
        (("dags", "test", "ingset"), 2, "did you mean 'ingest'?"),
        (("dags", "test", "ingest", "-p", "row=5"), 2, "no param 'row'"),
        (("dags", "test", "build_report", "-e", "file:///lake/orders"), 1, "KeyError: 'rows'"),
        (("dags", "test", "ingest", "--dags", tmp_path / "none"), 2, "does not exist"),
    ]:
        ended = anywhere(*arguments, cwd=project)
        assert (ended.code, says in ended.err + ended.out) == (code, True), ended
    (tmp_path / "broken.py").write_text(BROKEN)
    ended = anywhere("dags", "test", "ingest", "--dags", tmp_path)
    assert (ended.code, "broken.py" in ended.err, ended.err.count("\n")) == (2, True, 1)


def test_a_manifest_is_up_to_date_until_a_file_changes(project, anywhere, tmp_path):
    folder, manifest = tmp_path / "dags", tmp_path / "dags.json"
    folder.mkdir()
    source = (project / "dags" / "sales.py").read_text()
    (folder / "sales.py").write_text(f"import msgspec\n{source}")
    write = ("compile", folder, "-o", manifest)
    assert anywhere(*write).out == f"2 DAGs written to {manifest}\n"
    assert anywhere(*write, "--check").code == 0
    found = json.loads(manifest.read_text())
    assert {"pubsubflow", "msgspec"} == {*found["environment"]["packages"]}
    tasks = found["files"]["sales.py"]["dags"]["build_report"]["tasks"]
    assert [task["task_id"] for task in tasks] == ["add_up", "publish"]
    (folder / "sales.py").write_text(source.replace("retries=2", "retries=3"))
    changed = anywhere(*write, "--check")
    assert (changed.code, "ingest" in changed.err, "msgspec" in changed.err) == (1, True, True)
    (folder / "sales.py").write_text(BROKEN)
    (folder / "second.py").write_text(BROKEN)
    failed = anywhere(*write)
    assert (failed.code, "nothing was compiled: 2 files" in failed.err) == (1, True)
    assert all(name in failed.err for name in ("sales.py:", "second.py:"))
    inside = anywhere("compile", folder, "-o", folder / "dags.json")
    assert (inside.code, "write it beside the folder" in inside.err) == (2, True)
    airflow = '[bundles.old]\nkind = "airflow"\n'
    (tmp_path / "airflow.toml").write_text(airflow)
    refused = anywhere(*write, "--config", tmp_path / "airflow.toml")
    assert (refused.code, "bundles.old has files of Airflow" in refused.err) == (2, True)
