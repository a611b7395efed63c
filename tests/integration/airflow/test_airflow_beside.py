"""DAGs end here as they end by Airflow's own `dag.test()`: states and results, side by side."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.airflow import airflow_python
from support.airflow_beside import (
    bridge,
    bridged_dags,
    differences,
    run_beside,
    run_bridged,
    task_of,
)
from support.airflow_races import racy_tasks

pytestmark = pytest.mark.anyio
FILES = Path(__file__).with_name("beside") / "dags"


@pytest.fixture(scope="module", autouse=True)
def host(tmp_path_factory):
    airflow_python()
    with bridge(tmp_path_factory.mktemp("b")):
        yield


WRITTEN = ("branching.py", "mapping.py", "rules.py")


async def test_written_dags(tmp_path):
    """Branches and skips, mapped tasks and groups, all rules over all mixes, setups."""
    (tmp_path / "dags").mkdir()
    files = [Path(shutil.copy(FILES / name, tmp_path / "dags")) for name in WRITTEN]
    dags = {dag_id: dag for file in files for dag_id, dag in bridged_dags(file).items()}
    theirs = run_beside(tmp_path / "dags", sorted(dags), tmp_path / "airflow")
    compared = 0
    for dag_id, dag in dags.items():
        ours = await run_bridged(dag)
        assert differences(ours, theirs[dag_id]) == {}, dag_id
        compared += len(theirs[dag_id].states)
    assert compared >= 270


async def test_people_answer(tmp_path):
    """An approval, a refusal, a form, several options, a branch, and two that nobody answers."""
    file = Path(shutil.copy(FILES / "asking.py", tmp_path))
    answers = {
        "Deploy asking?": "Approve",
        "Delete all?": "Reject",
        "How many?": {"option": "OK", "values": {"rows": 7}},
        "Which?": {"option": "answer", "values": {"_options": ["a", "c"]}},
        "Where to?": "right",
    }
    found = await run_bridged(bridged_dags(file)["asking"], answers=answers)
    assert found.states == {
        "approve": "success",
        "deployed": "success",
        "refuse": "success",
        "deleted": "skipped",
        "entry": "success",
        "several": "success",
        "branch": "success",
        "left": "skipped",
        "right": "success",
        "late": "success",
        "never": "failed",
    }
    answers = {name: found.values[name] for name in ("entry", "several", "late")}
    assert [each["chosen_options"] for each in answers.values()] == [["OK"], ["a", "c"], ["no"]]
    assert answers["entry"]["params_input"] == {"rows": 7}
    assert answers["entry"]["responded_by_user"]["name"] == "test"
    assert answers["late"]["responded_by_user"] is None


async def compare_generated(numbers, folder):
    """Compare DAGs made from these numbers; return how many instances, and how many are racy."""
    folder.mkdir(exist_ok=True)
    dags_folder = folder / "dags"
    dags_folder.mkdir()
    file = dags_folder / "generated.py"
    text = (FILES / file.name).read_text()
    file.write_text(text.replace("NUMBERS = range(1)", f"NUMBERS = {numbers!r}"))
    dags = bridged_dags(file)
    theirs = run_beside(dags_folder, sorted(dags), folder / "airflow")
    compared = racy = 0
    for dag_id, dag in dags.items():
        ours = await run_bridged(dag)
        left_out = racy_tasks(dag, [ours, theirs[dag_id]])
        found = differences(ours, theirs[dag_id])
        if left_out:
            found.pop("run", None)
        certain = [what for what in found if task_of(what.partition(" of ")[2]) not in left_out]
        assert certain == [], (dag_id, found)
        names = [task_of(name) in left_out for name in theirs[dag_id].states]
        compared, racy = compared + len(names), racy + sum(names)
    return compared, racy


async def test_generated_dags(tmp_path):
    compared, _ = await compare_generated(range(60, 70), tmp_path)
    assert compared > 50


@pytest.mark.soak
async def test_two_thousand_instances_of_generated_dags(tmp_path):
    compared = racy = 0
    for first in range(1_000, 3_000, 50):
        found = await compare_generated(range(first, first + 50), tmp_path / str(first))
        compared, racy = compared + found[0], racy + found[1]
        shutil.rmtree(tmp_path / str(first))
        print("COMPARED", compared, "instances, of which racy", racy)
        if compared - racy >= 2_000:
            break
    assert racy < compared / 3


async def test_dags_that_fail_fast(tmp_path):
    """What has not begun is skipped, and teardowns run; a retry is not a failure."""
    file = Path(shutil.copy(FILES / "failing_fast.py", tmp_path))
    dags = bridged_dags(file)
    theirs = run_beside(tmp_path, sorted(dags), tmp_path / "airflow")
    for dag_id, dag in dags.items():
        assert differences(await run_bridged(dag), theirs[dag_id]) == {}, dag_id
    assert theirs["fast_chain"].states["last"] == "skipped"


async def test_dates_params_and_values(tmp_path):
    """Of a run with a date, for each kind of timetable; XComs of all kinds; retries."""
    file = Path(shutil.copy(FILES / "dates.py", tmp_path))
    dags = bridged_dags(file)
    theirs = run_beside(tmp_path, sorted(dags), tmp_path / "airflow")
    for dag_id, dag in dags.items():
        # A run of `dag.test()` is a manual one; here one of a DAG with ticks would be by time.
        dag.schedule = None
        ours = await run_bridged(dag, logical_time=datetime(2026, 11, 28, tzinfo=UTC))
        assert differences(ours, theirs[dag_id]) == {}, dag_id
    assert theirs["values"].values["third"] == 3
