"""DAGs of Airflow's files become structures, in an interpreter that has Airflow."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pubsubflow.airflow.structure import AssetStructure, DagStructure, MapFactor, TaskStructure
from support.airflow import airflow_python, structure_of, written

FILE = """
import datetime
from airflow.sdk import DAG, Asset, dag, task, task_group
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import ShortCircuitOperator
from airflow.providers.standard.sensors.bash import BashSensor
from airflow.task.priority_strategy import PriorityWeightStrategy

orders = Asset("s3://lake/orders")

with DAG("classic", schedule="0 6 * * *", start_date=datetime.datetime(2026, 1, 1), tags=["b", "a"],
         default_args={"owner": "ann", "retries": 2}, params={"day": "monday"}):
    first = EmptyOperator(task_id="first")
    bash = BashOperator(task_id="bash", bash_command="true", outlets=[orders], pool="db",
                        retry_delay=datetime.timedelta(seconds=7), retry_exponential_backoff=True)
    stop = ShortCircuitOperator(task_id="stop", python_callable=lambda: False)
    first >> bash >> stop

class Tripled(PriorityWeightStrategy):
    def get_weight(self, ti):
        return 3 * ti.task.priority_weight

with DAG("weighted", schedule=None):
    first = EmptyOperator(task_id="first", priority_weight=4)
    own = EmptyOperator(task_id="own", priority_weight=5, weight_rule=Tripled())
    rule = "airflow.example_dags.plugins.decreasing_priority_weight_strategy"
    EmptyOperator(task_id="named", weight_rule=f"{rule}.DecreasingPriorityStrategy")
    first >> own >> EmptyOperator(task_id="none", priority_weight=0, weight_rule="absolute")
    BashSensor.partial(task_id="sensor", mode="reschedule").expand(bash_command=["true"])
    BashSensor(task_id="poking", bash_command="true")

@dag(schedule=orders & Asset("plain"))
def flow():
    @task
    def numbers():
        return [1, 2]

    @task
    def double(n, by):
        return n * by

    @task_group
    def group(n):
        double.override(task_id="inner")(n, 2)

    @task.branch
    def choose():
        return "group.inner"

    found = numbers()
    doubled = double.expand(n=found, by=[1, 2, 3])
    group.expand(n=doubled)

flow()
"""

WARNED = """
from datetime import timedelta
from airflow.sdk import (
    DAG, Asset, AssetWatcher, AsyncCallback, DeadlineAlert, DeadlineReference
)
from airflow.providers.standard.operators.bash import BashOperator
from airflow.triggers.base import BaseEventTrigger

class Seen(BaseEventTrigger):
    def serialize(self):
        return "warned.Seen", {}

    async def run(self):
        yield

async def missed():
    pass

watched = Asset("s3://lake/seen", watchers=[AssetWatcher(name, Seen()) for name in "ab"])
with DAG("warned", schedule=[watched], deadline=DeadlineAlert(
    DeadlineReference.AVERAGE_RUNTIME(), timedelta(hours=1), AsyncCallback(missed)
)):
    BashOperator(task_id="a", bash_command="true", executor_config={"KubernetesExecutor": {}})
"""
COMPUTED = """
import pendulum
from airflow.sdk import DAG, EventsTimetable
from airflow.timetables.base import DagRunInfo, DataInterval, Timetable
from dateutil.relativedelta import relativedelta

TODAY = pendulum.now("UTC").start_of("day")
START = pendulum.datetime(2026, 1, 1)

class Noons(Timetable):
    def infer_manual_data_interval(self, *, run_after):
        return DataInterval.exact(run_after)

    def next_dagrun_info(self, *, last_automated_data_interval, restriction):
        last = last_automated_data_interval
        return DagRunInfo.exact(last.end.add(days=1) if last else restriction.earliest.at(12))

SCHEDULES = {
    "events": EventsTimetable([TODAY.add(days=1), TODAY.add(days=3)]),
    "months": relativedelta(months=1),
    "noons": Noons(),
}
for name, schedule in SCHEDULES.items():
    with DAG(name, schedule=schedule, start_date=START):
        pass
"""


@pytest.fixture(scope="module")
def dags(tmp_path_factory) -> dict[str, DagStructure]:
    airflow_python()
    folder: Path = tmp_path_factory.mktemp("dags")
    found = structure_of(written(folder, "flow.py", FILE), folder)
    assert found.error is None, found.traceback
    return {dag.dag_id: dag for dag in found.dags}


def test_a_classic_dag(dags):
    found = dags["classic"]
    first, bash, stop = found.tasks
    assert found.schedule == {"cron": "0 6 * * *", "tz": "UTC", "data_interval": False}
    assert (found.owner, found.tags, found.catchup) == ("ann", ("a", "b"), False)
    assert found.params["day"].value == "monday"
    assert (first.kind, bash.upstream, stop.role) == ("empty", ("first",), "short_circuit")
    assert (bash.retries, bash.retry_delay, bash.retry_backoff, bash.pool) == (2, 7.0, 2.0, "db")
    assert bash.outlets == (AssetStructure("s3://lake/orders", "s3://lake/orders"),)


def test_weights_are_those_of_the_rule(dags):
    found = {task.task_id: task for task in dags["weighted"].tasks}
    names = ("first", "own", "none", "sensor", "named")
    assert [found[name].priority for name in names] == [9, 15, 0, 1, 4]
    noted = "the weight rule {} gives one weight for all attempts and instances"
    rules = {noted.format("DecreasingPriorityStrategy"), noted.format("Tripled")}
    assert set(dags["weighted"].notes) == rules
    assert (found["sensor"].reschedules, found["poking"].reschedules) == (True, False)


def test_mapped_tasks_and_groups(dags):
    tasks: dict[str, TaskStructure] = {task.task_id: task for task in dags["flow"].tasks}
    by_task = MapFactor("n", task_id="numbers")
    assert tasks["double"].factors == (by_task, MapFactor("by", length=3))
    inner = tasks["group.inner"]
    assert (inner.map_group, inner.groups) == ("group", ("group",))
    assert inner.factors == (MapFactor("n", task_id="double"),)


def test_assets_are_the_schedule(dags):
    assert dags["flow"].schedule == {
        "all": [
            {"asset": {"name": "s3://lake/orders", "uri": "s3://lake/orders", "kind": "asset"}},
            {"asset": {"name": "plain", "uri": "plain", "kind": "asset"}},
        ]
    }


def test_what_has_no_counterpart_is_a_warning(tmp_path):
    found = structure_of(written(tmp_path, "warned.py", WARNED), tmp_path)
    assert found.error is None, found.traceback
    (dag,) = found.dags
    (side,) = dag.schedule["all"]
    assert side["watch"]["classpath"] == "warned.Seen"
    assert dag.deadlines == ()
    executor, deadline, watcher = dag.notes
    assert executor == "executor_config is not used"
    assert deadline.startswith("a deadline of the DAG is not kept: AverageRuntimeDeadline")
    assert watcher == "the watcher 'b' of asset 's3://lake/seen' is not started: it has two"


def test_ticks_that_airflow_alone_knows_are_computed(tmp_path):
    """Of dates, of a delta by the calendar, and of a timetable of the team's own."""
    found = structure_of(written(tmp_path, "computed.py", COMPUTED), tmp_path)
    assert found.error is None, found.traceback
    ticks = {
        dag.dag_id: [datetime.fromtimestamp(each, UTC) for each in dag.schedule["ticks"]]
        for dag in found.dags
    }
    first, second = ticks["events"]
    assert ((second - first).days, first.hour) == (2, 0)
    assert len(ticks["months"]) >= 12
    assert {(each.day, each.hour) for each in ticks["months"]} == {(1, 0)}
    assert len(ticks["noons"]) >= 365
    assert {(each.hour, each.minute) for each in ticks["noons"]} == {(12, 0)}
