"""Runs in the interpreter that has Airflow: prints which tasks its scheduler starts, step by step.

The scheduler is Airflow's own, with an executor that executes nothing: of the tasks that have
started, the first one ends at each step, so what runs side by side depends on no clock.
"""

import json
import logging
import warnings
from datetime import timedelta

import pendulum
from airflow.callbacks.database_callback_sink import DatabaseCallbackSink
from airflow.dag_processing import dagbag as bags
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.executors.base_executor import BaseExecutor
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.dagrun import DagRun
from airflow.models.pool import Pool
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.utils import db
from airflow.utils.session import create_session
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import select

NOW = pendulum.now("UTC").subtract(hours=1)
BUNDLE = "dags-folder"
LONG = timedelta(hours=1)


class NoExecutor(BaseExecutor):
    """Takes tasks, and leaves them queued."""

    def queue_workload(self, workload, session):
        pass


def main(folder, pools, scenarios):
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    db.initdb()
    DagBundlesManager().sync_bundles_to_db()
    found = bags.BundleDagBag(folder, bundle_path=folder, bundle_name=BUNDLE)
    bags.sync_bag_to_db(found, BUNDLE, None)
    for name, slots in json.loads(pools).items():
        Pool.create_or_update_pool(name, slots, description="", include_deferred=False)
    executor = NoExecutor()
    executor.callback_sink = DatabaseCallbackSink()
    scheduler = SchedulerJobRunner(Job(), executors=[executor])
    with create_session() as session:
        runs = {
            name: [_make_run(session, number, dag_id) for number, dag_id in enumerate(dags)]
            for name, dags in json.loads(scenarios).items()
        }
        found = {name: {"steps": []} for name in runs}
        while _schedule(session, scheduler, found, runs):
            _end_first(session, found)
        for name, keys in runs.items():
            made = [run for run in _all(session, DagRun) if (run.dag_id, run.run_id) in keys]
            found[name]["runs"] = [str(run.state) for run in made]
            found[name]["tasks"] = sorted(
                (_name(each), str(each.state)) for each in _instances(session, keys)
            )
    print("LIMITS " + json.dumps(found))


def _make_run(session, number, dag_id):
    at = NOW.add(seconds=number)
    date = at.add(days=1) if dag_id == "date_to_come" else at
    after = at.add(days=1) if dag_id == "to_run_later" else at
    run_id = f"run_{number}"
    SerializedDagModel.get_dag(dag_id, session=session).create_dagrun(
        run_id=run_id,
        logical_date=date,
        data_interval=(date, date),
        run_after=after,
        run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.TEST,
        state="queued",
        session=session,
    )
    return dag_id, run_id


def _schedule(session, scheduler, found, runs):
    """Let the scheduler decide until nothing changes; note what runs, and return whether any."""
    session.commit()
    before = None
    while before != (before := _states(session)):
        scheduler._do_scheduling(session)
        session.commit()
    for name, keys in runs.items():
        running = [each for each in _instances(session, keys) if each.state == "queued"]
        found[name]["steps"].append(sorted(map(_name, running)))
    return any(each["steps"][-1] for each in found.values())


def _end_first(session, found):
    """End the first task of each scenario; by their names one is deferred, and a run too long."""
    first = {each["steps"][-1][0] for each in found.values() if each["steps"][-1]}
    for each in _all(session, TaskInstance):
        if _name(each) in first and each.task_id == "too_long":
            each.dag_run.start_date -= LONG
        elif _name(each) in first and each.task_id == "defers":
            each.state = "deferred"
        elif _name(each) in first:
            each.state, each.end_date = "success", pendulum.now("UTC")


def _states(session):
    runs = [run.state for run in _all(session, DagRun)]
    return runs, [(each.id, each.state) for each in _all(session, TaskInstance)]


def _instances(session, keys):
    return [each for each in _all(session, TaskInstance) if (each.dag_id, each.run_id) in keys]


def _all(session, kind):
    query = select(kind).order_by(kind.id).execution_options(populate_existing=True)
    return session.scalars(query).all()


def _name(instance):
    index = "" if instance.map_index < 0 else f".{instance.map_index}"
    return f"{instance.dag_id}.{instance.run_id}.{instance.task_id}{index}"
