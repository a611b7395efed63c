"""Structures of Airflow's DAGs become specs; only workers that know the bundle get its tasks."""

import pytest
from msgspec.structs import replace

from pubsubflow.airflow.outside.build import build_dag
from pubsubflow.airflow.outside.place import BundlePlace
from pubsubflow.airflow.structure import DagStructure, DeadlineStructure, TaskStructure
from pubsubflow.authoring.registry import loading
from pubsubflow.errors import DefinitionError
from pubsubflow.model.schedule.conditions import AnyOf, Tick
from pubsubflow.model.schedule.timetable import TableSpec
from pubsubflow.model.source.stored_specs import needed_format
from pubsubflow.store.read.task_waits import QueueWorkers, ServedQueues
from pubsubflow.worker.executors.offers import ExecutorOffers
from pubsubflow.worker.settings import WorkerSettings


def spec_of(*tasks, **more):
    place = BundlePlace("team", legacy=True, folder="/bundles/1", root="/dags", file="flow.py")
    with loading("flow.py"):
        return build_dag(DagStructure("flow", tasks=tasks, **more), place).to_spec("flow.py", "")


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


def test_ticks_that_airflow_has_computed_are_the_schedule():
    ticks = {"name": "plugins.Workday", "ticks": [1_800_000_000, 1_800_086_400], "renew_at": 9}
    either = [ticks, {"asset": {"name": "a", "uri": "s3://lake/a", "kind": "asset"}}]
    found = spec_of(schedule={"any": either}).schedule.condition
    assert isinstance(found, AnyOf)
    table = TableSpec("plugins.Workday", (1_800_000_000, 1_800_086_400), 9)
    assert found.sides[0] == Tick(0, table)


def test_a_timetable_that_cannot_be_known_ahead_is_refused():
    custom = {"custom": "airflow.CronPartitionTimetable", "reason": "it makes runs of partitions"}
    with pytest.raises(DefinitionError, match="not supported, as it makes runs of partitions"):
        spec_of(schedule=custom)
    with pytest.raises(DefinitionError, match="run_as_user"):
        spec_of(refused="task 'a' has run_as_user='ann'")


def test_a_watched_asset_is_a_dataset_with_a_watch():
    watch = {"classpath": "team.Sees", "kwargs": {"n": 1}}
    asset = {"asset": {"name": "a", "uri": "s3://lake/a", "kind": "asset"}, "watch": watch}
    place = BundlePlace("team", legacy=True, folder="/bundles/1", root="/dags", file="flow.py")
    with loading("flow.py") as loaded:
        build_dag(DagStructure("flow", tasks=(), schedule=asset), place)
    (dataset,) = loaded.datasets
    assert dataset.to_spec().watch_name == "pubsubflow.AirflowTrigger"
    assert (dataset.watch.classpath, dataset.watch.bundle, dataset.watch.watch) == (
        "team.Sees",
        "team",
        True,
    )


def _written(parts) -> str:
    return "".join(part.text or f"{{{{ {'.'.join(part.path)} }}}}" for part in parts)


def test_slots_of_the_pool_without_a_limit_do_not_count_and_waits_of_rescheduled_sensors():
    spec = spec_of(
        TaskStructure("wide", "BashOperator", pool_slots=3),
        TaskStructure("sensor", "DateTimeSensor", limit_all=1, reschedules=True),
    )
    assert (spec.tasks[0].pool, spec.tasks[0].pool_slots) == (None, 1)
    assert not spec.tasks[1].keeps_slots


def test_limits_are_concurrency_keys():
    spec = spec_of(
        TaskStructure("all", "BashOperator", limit_all=2, limit_run=1),
        TaskStructure("run", "BashOperator", limit_run=1),
        TaskStructure("other", "BashOperator"),
        max_active_tasks=3,
    )
    limits = {
        task.task_id: [(task.concurrency_key, task.concurrency_limit)]
        + [(_written(each.parts), each.limit) for each in task.further_keys]
        for task in spec.tasks
    }
    run = "{{ run.run_id }}"
    assert limits == {
        "all": [
            ("airflow/flow/all", 2),
            (f"airflow/flow/all/{run}", 1),
            (f"airflow/flow/{run}", 3),
        ],
        "run": [(f"airflow/flow/run/{run}", 1), (f"airflow/flow/{run}", 3)],
        "other": [(f"airflow/flow/{run}", 3)],
    }
    assert [task.keeps_slots for task in spec.tasks] == [True, True, False]
    assert [part.path for part in spec.tasks[2].key_parts if part.path] == [("run", "run_id")]


def test_deadlines_are_ours():
    fixed = DeadlineStructure(1, 1.0, "2026-01-01T00:00:00+00:00", "told")
    spec = spec_of(
        TaskStructure("a", "BashOperator"),
        deadlines=(DeadlineStructure(0, 300.0, "queued", "told"), fixed),
    )
    found = [(each.after_seconds, each.since, each.callbacks) for each in spec.deadlines]
    assert found == [
        (300.0, "queued", ("told",)),
        (1.0, "2026-01-01T00:00:00+00:00", ("told",)),
    ]
