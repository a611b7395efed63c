"""DAGs end here as they end by Airflow's own `dag.test()`: states and results, side by side."""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.airflow import airflow_python
from support.airflow_beside import (
    beside,
    bridge,
    bridged_dags,
    differences,
    run_bridged,
    task_of,
)
from support.airflow_races import mended_tasks, racy_tasks

pytestmark = pytest.mark.anyio
FILES = Path(__file__).with_name("beside") / "dags"
MARK = "marked by the backend"
IS_OLDER = os.environ.get("AIRFLOW_RELEASE", "").startswith("3.2.")


@pytest.fixture(scope="module", autouse=True)
def host(tmp_path_factory):
    airflow_python()
    with bridge(tmp_path_factory.mktemp("b")):
        yield


WRITTEN = ("branching.py", "mapping.py", "rules.py")
FAIL_FAST = "failing_fast.py"
DATES = "dates.py"
GENERATED = "generated.py"
GROUPED = "grouped.py"
ENDING = "ending.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("dags")
    for name in (*WRITTEN, FAIL_FAST, DATES, GROUPED, ENDING):
        shutil.copy(FILES / name, made)
    generate(range(60, 66), made)
    return made


@pytest.fixture(scope="module")
def theirs(folder, tmp_path_factory):
    """Airflow runs all files in one process, while tests run them here: importing it takes long."""
    with beside(folder, tmp_path_factory.mktemp("airflow")) as running:
        yield running


async def ends_of(folder, name, **more):
    """Run the DAGs of a file here; return how they ended."""
    dags = bridged_dags(folder / name)
    return {dag_id: await run_bridged(dag, **more) for dag_id, dag in dags.items()}


def compare(ours, theirs):
    """Return how many instances were compared."""
    for dag_id, outcome in ours.items():
        assert differences(outcome, theirs[dag_id]) == {}, dag_id
    return sum(len(theirs[dag_id].states) for dag_id in ours)


async def test_written_dags(folder, theirs):
    """Branches and skips, mapped tasks and groups, all rules over all mixes, setups."""
    ours = {}
    for name in WRITTEN:
        ours |= await ends_of(folder, name)
    assert compare(ours, theirs.outcomes()) >= 270


async def test_groups_over_results(folder, theirs):
    """Each rule, over instances that end as they do and over what ends as a whole."""
    compared, _ = await compare_certain(folder / GROUPED, theirs, lambda *_: set())
    assert compared >= 140


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


def generate(numbers, folder):
    """Write a file of DAGs that are made from these numbers."""
    text = (FILES / GENERATED).read_text()
    (folder / GENERATED).write_text(text.replace("NUMBERS = range(1)", f"NUMBERS = {numbers!r}"))


async def compare_certain(file, theirs, uncertain):
    """Compare the DAGs of a file; return how many instances, and how many are left out.

    Those are left out that `uncertain` names, and those whose ends a later release has mended.
    """
    dags = bridged_dags(file)
    ends = {dag_id: await run_bridged(dag) for dag_id, dag in dags.items()}
    outcomes = theirs.outcomes()
    compared = racy = 0
    for dag_id, ours in ends.items():
        left_out = uncertain(dags[dag_id], [ours, outcomes[dag_id]])
        left_out |= mended_tasks(dags[dag_id]) if IS_OLDER else set()
        found = differences(ours, outcomes[dag_id])
        if left_out:
            found.pop("run", None)
        certain = [what for what in found if task_of(what.partition(" of ")[2]) not in left_out]
        assert certain == [], (dag_id, found)
        names = [task_of(name) in left_out for name in outcomes[dag_id].states]
        compared, racy = compared + len(names), racy + sum(names)
    return compared, racy


async def test_generated_dags(folder, theirs):
    compared, _ = await compare_certain(folder / GENERATED, theirs, racy_tasks)
    assert compared > 40


@pytest.mark.soak
async def test_two_thousand_instances_of_generated_dags(tmp_path):
    compared = racy = 0
    for first in range(1_000, 3_000, 50):
        made = tmp_path / str(first)
        (made / "dags").mkdir(parents=True)
        generate(range(first, first + 50), made / "dags")
        with beside(made / "dags", made / "airflow") as theirs:
            found = await compare_certain(made / "dags" / GENERATED, theirs, racy_tasks)
        compared, racy = compared + found[0], racy + found[1]
        shutil.rmtree(made)
        print("COMPARED", compared, "instances, of which racy", racy)
        if compared - racy >= 2_000:
            break
    assert compared - racy >= 2_000
    assert racy < compared / 3


async def test_dags_that_fail_fast(folder, theirs):
    """What has not begun is skipped, and teardowns run; a retry is not a failure."""
    compare(await ends_of(folder, FAIL_FAST), outcomes := theirs.outcomes())
    assert outcomes["fast_chain"].states["last"] == "skipped"


async def test_dates_params_and_values(folder, theirs):
    """Of a run with a date, for each kind of timetable; XComs of all kinds; retries."""
    dags, ours = bridged_dags(folder / DATES), {}
    for dag_id, dag in dags.items():
        # A run of `dag.test()` is a manual one; here one of a DAG with ticks would be by time.
        dag.schedule = None
        ours[dag_id] = await run_bridged(dag, logical_time=datetime(2026, 11, 28, tzinfo=UTC))
    compare(ours, outcomes := theirs.outcomes())
    assert outcomes["values"].values["third"] == 3


async def test_limits_of_time_attempts_and_a_backend_of_ones_own(folder, theirs):
    """What runs too long, sensors that give up, retries, and how a team's backend stores XComs."""
    ours = await ends_of(folder, ENDING)
    compare(ours, theirs.outcomes())
    assert ours["limits"].states["slow_once"] == "success"
    assert ours["backend"].values["first"] == {MARK: {"rows": 3}}
