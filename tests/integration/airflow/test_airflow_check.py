"""A folder of files in the manner of 1.10, 2.x and 3.x is checked: each file as the table says."""

import json
import shutil
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from pubsubflow.cli.main import run
from support.airflow import airflow_python, run_inside

CORPUS = Path(__file__).with_name("corpus")
SUFFIXES = {"legacy": "", "changed": "~", "ignored": "-", "fails": "!"}
# What the Airflow of each version lacks: file → since when it runs.
SINCE = {"three/retry_policy.py": (3, 3)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    airflow_python()
    made = tmp_path_factory.mktemp("corpus")
    shutil.copytree(CORPUS, made, dirs_exist_ok=True)
    with zipfile.ZipFile(made / "dags" / "packed.zip", "w") as archive:
        for name in ("packed.py", "packed_helper.py"):
            archive.write(made / "dags" / "zipped" / name, name)
    return made


def check(folder, place, *options):
    home = folder / "home"
    given = ["--python", airflow_python(), "--airflow-home", home]
    given += ["--variables", home / "variables.json", "--connections", home / "connections.json"]
    return run(["airflow", "check", *map(str, [place, *given, *options])])


@pytest.fixture(scope="module")
def report(folder):
    with pytest.MonkeyPatch.context() as patch, pytest.MonkeyPatch.context() as output:
        patch.setenv("AIRFLOW_VAR_FROM_ENV", "v")
        patch.setenv("AIRFLOW_CONN_FROM_ENV", "http://h")
        kept = folder / "report.json"
        with kept.open("w") as file:
            output.setattr(sys, "stdout", file)
            assert check(folder, folder / "dags", "--format", "json") == 1
    return json.loads(kept.read_text())


def expected():
    for line in (CORPUS / "expected.txt").read_text().splitlines():
        if not line.startswith("#"):
            yield [part.strip() for part in (line + " |" * 4).split("|")[:5]]


def _elsewhere(note, file):
    here = note["file"] == file["file"] or not note["line"]
    return "" if here else Path(note["file"]).name + ":"


def found_lines(file):
    notes = [note for note in file["notes"] if note["line"] or note["kind"] == "fails"]
    return {f"{_elsewhere(note, file)}{note['line']}{SUFFIXES[note['kind']]}" for note in notes}


def test_every_file_has_the_outcome_of_the_table(report):
    found = {file["file"]: file for file in report["files"]}
    release = tuple(map(int, report["airflow"].split(".")[:2]))
    table = {name: rest for name, *rest in expected()}
    assert found.keys() == table.keys()
    for name, (outcome, dags, lines, remedy) in table.items():
        file = found[name]
        if release < SINCE.get(name, release):
            assert file["outcome"] == "cannot"
            continue
        assert (file["outcome"] == "cannot") == (outcome == "cannot"), (name, file)
        assert dict(each.split(":") for each in dags.split()) == {
            dag["dag_id"]: str(len(dag["tasks"])) for dag in file["dags"]
        }, name
        assert found_lines(file) == set(lines.split()), name
        remedies = "; ".join(each["remedy"] or each["reason"] for each in file["errors"])
        assert remedies == remedy, name
        if outcome == "note":
            assert file["outcome"] == "note"


def test_the_corpus_is_of_all_kinds(report):
    kinds = Counter(file["file"].partition("/")[0] for file in report["files"])
    assert sum(kinds.values()) >= 100
    assert min(kinds[each] for each in ("one_ten", "two", "three", "wrong")) >= 20
    assert report["counts"]["cannot"] == sum(f["outcome"] == "cannot" for f in report["files"])


def test_what_files_read_while_they_load_is_counted(report):
    found = {file["file"]: file for file in report["files"]}
    assert found["three/variables.py"]["variables"] == {"tables": 1}
    assert found["two/top_hook.py"]["connections"] == {"dw": 1}
    # The SDK finds these in the environment.
    assert found["three/environment.py"]["variables"] == {}
    assert found["three/variable_default.py"]["defaulted"] == ["not_there"]


def test_plugins_are_loaded_as_files_are(report):
    assert report["plugin_errors"] == {}


def test_a_report_for_people(folder, capsys):
    assert check(folder, folder / "dags" / "wrong" / "missing_variable.py") == 1
    out = capsys.readouterr().out
    assert "missing_variable.py: cannot run: no DAGs" in out
    assert "→ pubsubflow variables set no_such_variable VALUE" in out
    assert "1 file: 0 run, 0 run with a note, 1 cannot run" in out


def test_a_page_that_loads_nothing(folder, capsys):
    assert check(folder, folder / "dags" / "one_ten" / "hello.py", "--format", "html") == 0
    out = capsys.readouterr().out
    assert out.startswith("<!doctype html>")
    assert "runs with a note" in out
    assert "schedule_interval=" in out
    assert not any(each in out for each in ("src=", "href=", "@import", "url("))


def test_without_the_legacy_layer_old_names_are_errors(folder, capsys):
    assert check(folder, folder / "dags" / "one_ten" / "hello.py", "--no-legacy") == 1
    assert "set legacy = true for the bundle" in capsys.readouterr().out


def test_a_mapper_of_the_team_is_refused_at_its_line(folder, tmp_path, capsys):
    (tmp_path / "parts.py").write_text(
        "from airflow import sdk\n"
        "class Ours(sdk.IdentityMapper):\n    pass\n"
        "table = sdk.PartitionedAssetTimetable(\n"
        "    assets=sdk.Asset('s3://a'), default_partition_mapper=Ours())\n"
        "with sdk.DAG('kept', schedule=None):\n    pass\n"
        "with sdk.DAG('refused', schedule=table):\n    pass\n"
    )
    assert check(folder, tmp_path / "parts.py") == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "parts.py:8" in out
    assert "its partition mapper Ours is one of the team's own" in out
    assert "map the keys by Airflow's own mappers" in out


@pytest.fixture(scope="module")
def inside(tmp_path_factory):
    airflow_python()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        printed = run_inside("rows_inside:main", home=tmp_path_factory.mktemp("rows"))
    return json.loads(printed.splitlines()[-1])


def test_every_message_of_the_sdk_is_answered_or_refused(inside):
    """By one of three tables; what a newer release adds fails here, and is to be written."""
    found = inside["messages"]
    assert {name: times for name, times in found.items() if times != 1} == {}
    assert len(found) >= 40


def test_every_old_name_is_found_where_its_distribution_is_installed(inside):
    found = inside["names"]
    wrong = {
        name: outcome
        for name, outcome in found.items()
        if outcome != "ok"
        and not outcome.startswith("RemovedName: ")
        and "No module named 'airflow.providers." not in outcome
        and "No module named 'kubernetes'" not in outcome
    }
    assert wrong == {}
    assert sum(outcome == "ok" for outcome in found.values()) > 100


def test_a_context_has_its_old_names(inside):
    found = inside["context"]
    assert found["execution_date"].startswith("2025-03-04")
    assert (found["next_ds"], found["prev_ds"]) == ("2025-03-05", "2025-03-03")
    assert (found["yesterday_ds_nodash"], found["tomorrow_ds"]) == ("20250303", "2025-03-05")
    # A run that an asset has started has no dates.
    assert found["without"] == ["conf", "dag_run", "logical_date", "test_mode"]


def test_a_pull_without_tasks_is_of_any_task_of_the_run_the_nearest_first(inside):
    assert inside["context"]["pulled"] == [3, ["second", "first"], 4]


@pytest.mark.soak
def test_the_examples_of_airflow_itself_are_loaded(folder, capsys):
    code = "import airflow, pathlib; print(pathlib.Path(airflow.__path__[0]) / 'example_dags')"
    (folder / "where.py").write_text(f"def main():\n    {code}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        examples = run_inside("where:main", home=folder).decode().splitlines()[-1]
    home = folder / "no_home"
    given = ["--python", airflow_python(), "--airflow-home", str(home), "--format", "json"]
    code = run(["airflow", "check", examples, *given])
    report = json.loads(capsys.readouterr().out)
    refused = {file["file"] for file in report["files"] if file["outcome"] == "cannot"}
    assert (refused, code) == (set(), 0)
    assert sum(bool(file["dags"]) for file in report["files"]) >= 45
