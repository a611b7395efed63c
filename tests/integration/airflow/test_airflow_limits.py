"""Pools, priorities, active tasks and runs, timeouts: as Airflow's own scheduler has them.

Both sides schedule the same file, and nothing is executed: at each step the first of the tasks that
have started ends, and what runs then is compared.
"""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from pubsubflow.airflow.outside.build import build_dag
from pubsubflow.airflow.outside.place import BundlePlace
from pubsubflow.authoring.registry import loading
from pubsubflow.model.wire.commands import FireTimers, SetPool, StartRun, Timer
from pubsubflow.model.wire.messages import Outcome, ResultMessage, encode
from pubsubflow.model.wire.waits import Wait, WaitSet
from support.airflow import START, airflow_python, structure_of
from support.harness import running_managers

pytestmark = pytest.mark.anyio
BESIDE = Path(__file__).with_name("beside")
FILE = BESIDE / "dags" / "limits.py"
SLOTS = {
    "absolute": 1,
    "downstream": 1,
    "upstream": 1,
    "usual": 1,
    "shared": 1,
    "slots": 3,
    "gathering": 3,
    "deferring": 1,
    "too_many": 3,
    "mapped": 2,
    "several": 3,
}
RUNS = {
    "weighted_absolute": 1,
    "weighted_downstream": 1,
    "weighted_upstream": 1,
    "weighted_usually": 1,
    "slots": 1,
    "gathering": 1,
    "deferred_counts": 1,
    "deferred_counts_not": 1,
    "too_many_slots": 1,
    "mapped": 1,
    "active_tasks": 2,
    "active_in_all_runs": 3,
    "active_in_a_run": 2,
    "several_limits": 2,
    "active_runs": 4,
    "one_run": 2,
    "timed": 1,
}
LATER = {"date_to_come": "running", "to_run_later": "queued"}
"""What begins no task before its time, with the state of the run until then."""
SCENARIOS = {dag_id: [dag_id] * runs for dag_id, runs in RUNS.items()}
SCENARIOS["shared"] = ["shared", "shared_too"]
# What needs more slots than are free keeps them free here; there others pass it.
GATHERING = [["two_slots"], ["three_slots"], ["last"], []]
PASSING = [["last", "two_slots"], ["two_slots"], ["three_slots"], []]
FAR = 4_000_000_000.0
_SETTINGS = {
    "PYTHONPATH": str(BESIDE),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    "AIRFLOW__CORE__PARALLELISM": "512",
    "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "512",
    "AIRFLOW__SCHEDULER__MAX_DAGRUNS_PER_LOOP_TO_SCHEDULE": "100",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL",
}
RUNNING = """
SELECT run.run_id, task_live.node, map_index, attempt, delivery, run.id
FROM task_live JOIN run ON run.id = task_live.run
WHERE task_live.state = 'queued'
"""
ENDED = "SELECT run.run_id, node, map_index, task.state FROM task JOIN run ON run.id = task.run"
TIMEOUTS = "SELECT due_at, kind, dag, run, node, map_index, attempt, key, id FROM timer"


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """Have Airflow's scheduler decide, beside ours."""
    home = tmp_path_factory.mktemp("airflow")
    folder = home / "dags"
    folder.mkdir()
    shutil.copy(FILE, folder)
    env = {
        **os.environ,
        **_SETTINGS,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
    }
    given = json.dumps(SLOTS), json.dumps(SCENARIOS | {name: [name] for name in LATER})
    command = [airflow_python(), str(START), "limits_side:main", str(folder), *given]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        yield run
        run.kill()


@pytest.fixture
async def harness(database, bus, nats):
    async with running_managers(database, bus, nats) as harness:
        yield harness


@pytest.fixture
def specs(tmp_path):
    found = structure_of(FILE, tmp_path)
    assert found.error is None, found.traceback
    place = BundlePlace("team", legacy=True, folder="/b", root="/d", file="limits.py")
    with loading("limits.py"):
        return {dag.dag_id: build_dag(dag, place).to_spec("limits.py", "h") for dag in found.dags}


class OurSide:
    """The runs of one scenario.

    Args:
        harness: A manager.
        specs: The DAGs of the file.
    """

    def __init__(self, harness, specs) -> None:
        self._harness = harness
        self._specs = specs
        self._runs: dict[str, tuple[str, str]] = {}

    async def start(self, dag_ids) -> None:
        for number, dag_id in enumerate(dag_ids):
            run_id = await self._harness.call(StartRun(dag_id))
            self._runs[run_id] = dag_id, f"run_{number}"

    async def running(self):
        """Return what runs: name → the fence of its attempt."""
        rows = await self._harness.rows(RUNNING)
        return {self._name(*row[:3]): (row[5], *row[1:5]) for row in rows if self._is_own(row)}

    async def steps(self, expected):
        """Return what runs after each end, until what was expected has not come."""
        found = []
        for names in expected:
            found.append(await self._until(names))
            if found[-1] != names or not names:
                break
            await self._end(names[0])
        return found

    async def _until(self, names):
        async def same():
            return sorted(await self.running()) == names

        try:
            await self._harness.until(same)
        except TimeoutError:
            return sorted(await self.running())
        return names

    async def _end(self, name) -> None:
        if name.endswith(".too_long"):
            timers = [Timer(*row) for row in await self._harness.rows(TIMEOUTS)]
            await self._harness.call(FireTimers(tuple(timers)))
            return
        fence, now = (await self.running())[name], time.time()
        outcome, more = Outcome.SUCCESS, {}
        if ".defers" in name:
            waits = WaitSet("0", "far", (Wait("time", "far", due_at=FAR),))
            outcome, more = Outcome.DEFERRED, {"wait_set": encode(waits)}
        await self._harness.report(ResultMessage(*fence, "w1", outcome, now, now, **more))

    async def ends(self):
        """Return the states of the tasks that have ended, and of runs."""
        rows = await self._harness.rows(ENDED)
        tasks = sorted([self._name(*row[:3]), row[3]] for row in rows if self._is_own(row))
        rows = await self._harness.rows("SELECT run_id, state FROM run")
        states = {str(row[0]): row[1] for row in rows}
        return {"tasks": tasks, "runs": [states[run_id] for run_id in self._runs]}

    def _is_own(self, row) -> bool:
        return str(row[0]) in self._runs

    def _name(self, run_id, node, map_index) -> str:
        dag_id, run = self._runs[str(run_id)]
        index = "" if map_index < 0 else f".{map_index}"
        return f"{dag_id}.{run}.{self._specs[dag_id].tasks[node].task_id}{index}"


def pools_of(specs, dag_ids):
    return {task.pool for dag_id in dag_ids for task in specs[dag_id].tasks if task.pool}


async def test_tasks_and_runs_start_in_the_order_of_airflow(harness, specs, theirs):
    await harness.load(*specs.values())
    for name in SLOTS:
        await harness.call(SetPool(name, 0))
    printed, errors = theirs.communicate()
    lines = [line for line in printed.decode().splitlines() if line.startswith("LIMITS ")]
    assert lines, errors.decode()[-4_000:]
    expected = json.loads(lines[0].removeprefix("LIMITS "))
    # Here tasks wait for the date themselves: see test_airflow_semantics.py.
    for name, state in LATER.items():
        assert not any(expected[name]["steps"])
        assert expected[name]["runs"] == [state]
    passing = [[f"gathering.run_0.{name}" for name in names] for names in PASSING]
    assert expected["gathering"]["steps"][: len(PASSING)] == passing
    gathering = [[f"gathering.run_0.{name}" for name in names] for names in GATHERING]
    expected["gathering"]["steps"] = gathering
    different = {}
    for name, dag_ids in SCENARIOS.items():
        side = OurSide(harness, specs)
        await side.start(dag_ids)
        # All runs are there before the first task starts, as on the other side.
        for pool in pools_of(specs, dag_ids):
            await harness.call(SetPool(pool, SLOTS[pool]))
        found = {"steps": await side.steps(expected[name]["steps"]), **await side.ends()}
        for what, ours in found.items():
            there = expected[name][what][: len(ours)] if what == "steps" else expected[name][what]
            if ours != there:
                different[f"{name}: {what}"] = ours, there
    # What a timeout stops is skipped there, and runs again by a retry here; what had not begun has
    # no row.
    ours, there = different.pop("timed: tasks")
    stopped = {"cancelled": "skipped"}
    begun = [[name, stopped.get(state, state)] for name, state in ours]
    assert [each for each in there if each not in begun] == [["timed.run_0.not_begun", "skipped"]]
    assert len(begun) == len(there) - 1
    # Tasks that have not ended have no row of their end, either.
    for name in ("deferred_counts", "deferred_counts_not", "too_many_slots"):
        ours, there = different.pop(f"{name}: tasks")
        assert ours == [each for each in there if each[1] == "success"]
    assert different == {}, json.dumps(different, indent=1)
