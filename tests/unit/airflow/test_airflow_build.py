"""Structures of Airflow's DAGs become specs; only workers that know the bundle get its tasks."""

from msgspec.structs import replace

from pubsubflow.airflow.outside.build import build_dag
from pubsubflow.airflow.outside.place import BundlePlace
from pubsubflow.airflow.structure import DagStructure, TaskStructure
from pubsubflow.authoring.registry import loading
from pubsubflow.model.source.stored_specs import needed_format
from pubsubflow.store.read.task_waits import QueueWorkers, ServedQueues
from pubsubflow.worker.executors.offers import ExecutorOffers
from pubsubflow.worker.settings import WorkerSettings


def spec_of(*tasks):
    place = BundlePlace("team", legacy=True, folder="/bundles/1", root="/dags", file="flow.py")
    with loading("flow.py"):
        return build_dag(DagStructure("flow", tasks=tasks), place).to_spec("flow.py", "")


def test_tasks_have_a_queue_of_their_bundle():
    spec = spec_of(
        TaskStructure("usual", "BashOperator"), TaskStructure("heavy", "BashOperator", queue="big")
    )
    queues = {task.task_id: task.queue for task in spec.tasks}
    assert queues == {"usual": "default@airflow-team", "heavy": "big@airflow-team"}
    # A manager that counts instances may run it: what else it needs is the workers' to know.
    assert needed_format(spec) == needed_format(replace(spec, tasks=()))


def test_a_worker_without_the_bundle_leaves_them():
    settings = WorkerSettings(queues=("default", "big"))
    assert set(ExecutorOffers((), settings).queues) == {"default", "big"}
    served = ExecutorOffers((), settings, ("team",)).queues
    assert set(served) == {"default", "big", "default@airflow-team", "big@airflow-team"}


def test_what_is_missing_is_said():
    served = ServedQueues({"default": QueueWorkers(1, {"sync": 1, "async": 1})})
    said = served.unserved("default@airflow-team")
    assert "a worker of queue default that knows the bundle team" in said
    assert said.endswith("give one a section [bundles.team] in its configuration")
    busy = ServedQueues({"default@airflow-team": QueueWorkers(2, {"sync": 0, "async": 0})})
    assert "2 workers are busy" in busy.reason("default@airflow-team", "async")
