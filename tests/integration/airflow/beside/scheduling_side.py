"""Runs in the interpreter that has Airflow: prints what its scheduler decides.

Which tasks may start after a previous run with given states, and the delay after each attempt.
"""

import itertools
import json
import logging
import warnings

import pendulum
from airflow.dag_processing import dagbag as bags
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.models.serialized_dag import SerializedDagModel
from airflow.utils import db
from airflow.utils.session import create_session
from airflow.utils.types import DagRunTriggeredByType, DagRunType

DAY = pendulum.datetime(2026, 11, 28)
BUNDLE = "dags-folder"


def main(folder, states, attempts):
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    db.initdb()
    DagBundlesManager().sync_bundles_to_db()
    found = bags.BundleDagBag(folder, bundle_path=folder, bundle_name=BUNDLE)
    bags.sync_bag_to_db(found, BUNDLE, None)
    with create_session() as session:
        ways = itertools.product(json.loads(states), repeat=2)
        print("STARTS " + json.dumps([_starts(session, *way) for way in enumerate(ways)]))
        print("DELAYS " + json.dumps(_delays(session, json.loads(attempts))))


def _run(session, dag_id, at):
    dag = SerializedDagModel.get_dag(dag_id, session=session)
    run = dag.create_dagrun(
        run_id=f"manual__{at.int_timestamp}",
        logical_date=at,
        data_interval=(at, at),
        run_after=at,
        run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.TEST,
        state="running",
        session=session,
    )
    run.dag = dag
    return run


def _starts(session, number, way):
    """Return the first tasks that may start when those of the run before are in these states."""
    before = _run(session, "past", DAY.add(days=2 * number))
    for each in before.get_task_instances(session=session):
        each.state = way[each.task_id.endswith("_after")]
    session.flush()
    run = _run(session, "past", DAY.add(days=2 * number + 1))
    decided = run.task_instance_scheduling_decisions(session=session)
    return [*way, sorted(each.task_id for each in decided.schedulable_tis)]


def _delays(session, attempts):
    run = _run(session, "delays", DAY)
    found = {}
    for each in run.get_task_instances(session=session):
        each.task = run.dag.get_task(each.task_id)
        each.end_date = DAY
        for each.try_number in attempts:
            delay = each.next_retry_datetime() - DAY
            found.setdefault(each.task_id, []).append(delay.total_seconds())
    return found
