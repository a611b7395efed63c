"""What Airflow's scheduler and ours wait for: the previous run, and between attempts."""

import itertools
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pubsubflow.airflow.outside.build import build_dag
from pubsubflow.airflow.outside.place import BundlePlace
from pubsubflow.authoring.registry import loading
from pubsubflow.model.runs.past import PastRun, ended_nodes, unmet_task
from pubsubflow.model.runs.retry import RetryAt, after_failure
from pubsubflow.model.runs.states import TaskState
from support.airflow import run_inside, structure_of

BESIDE = Path(__file__).with_name("beside")
FILE = BESIDE / "dags" / "past.py"
STATES = ("success", "skipped", "failed", "upstream_failed", "running", None)
ATTEMPTS = (1, 2, 3, 4, 7, 12, 40)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """Return what Airflow decides, by what it prints."""
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    (home / "dags" / FILE.name).write_text(FILE.read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(BESIDE))
        patch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(home / "dags"))
        patch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
        given = json.dumps(STATES), json.dumps(ATTEMPTS)
        printed = run_inside("scheduling_side:main", str(home / "dags"), *given, home=home)
    lines = (line.partition(" ") for line in printed.decode().splitlines())
    return {name: json.loads(text) for name, _, text in lines if name in ("STARTS", "DELAYS")}


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    found = structure_of(FILE, tmp_path_factory.mktemp("structure"))
    assert found.error is None, found.traceback
    place = BundlePlace("team", legacy=True, folder="/b", root="/d", file="past.py")
    with loading("past.py"):
        return {dag.dag_id: build_dag(dag, place).to_spec("past.py", "h") for dag in found.dags}


def starts(spec, own, after):
    """Return the first tasks that may start when those of the run before are in these states."""
    states = {task.node: after if task.upstream else own for task in spec.tasks}
    final = {node: TaskState(state) for node, state in states.items() if state}
    nodes = ended_nodes(spec, [(node, state) for node, state in final.items() if state.final])
    past = PastRun(spec, nodes)
    first = [task for task in spec.tasks if not task.upstream]
    return sorted(
        task.task_id for task in first if not task.depends_on_past or unmet_task(task, past) is None
    )


def test_tasks_wait_for_the_previous_run(theirs, specs):
    ways = itertools.product(STATES, repeat=2)
    ours = [[*way, starts(specs["past"], *way)] for way in ways]
    assert ours == theirs["STARTS"]
    assert ["success", "failed", ["past", "plain"]] in ours


def test_delays_between_attempts_grow(theirs, specs):
    """Airflow lengthens such a delay by a number that it makes of the attempt, to its double."""
    now = datetime(2026, 11, 28, tzinfo=UTC)
    policies = {task.task_id: task.retry for task in specs["delays"].tasks}
    assert policies.keys() == theirs["DELAYS"].keys()
    for name, delays in theirs["DELAYS"].items():
        for attempt, delay in zip(ATTEMPTS, delays, strict=True):
            decided = after_failure(policies[name], attempt, final=False, chance=0, now=now)
            assert isinstance(decided, RetryAt)
            shortest = (decided.at - now).total_seconds()
            assert shortest <= delay <= shortest * 2, (name, attempt)
