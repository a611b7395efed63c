"""DAGs of Airflow's files become structures, in an interpreter that has Airflow."""

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

orders = Asset("s3://lake/orders")

with DAG("classic", schedule="0 6 * * *", start_date=datetime.datetime(2026, 1, 1), tags=["b", "a"],
         default_args={"owner": "ann", "retries": 2}, params={"day": "monday"}):
    first = EmptyOperator(task_id="first")
    bash = BashOperator(task_id="bash", bash_command="true", outlets=[orders], pool="db",
                        retry_delay=datetime.timedelta(seconds=7), retry_exponential_backoff=True)
    stop = ShortCircuitOperator(task_id="stop", python_callable=lambda: False)
    first >> bash >> stop

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
