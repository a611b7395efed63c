"""Runs in the interpreter that has Airflow: runs DAGs by `dag.test()`, and prints their ends."""

import functools
import json
import logging
import warnings

import pendulum
from airflow.dag_processing import dagbag as bags
from airflow.models.xcom import XComModel
from airflow.sdk.execution_time import supervisor
from airflow.utils import db
from airflow.utils.session import create_session

DAY = pendulum.datetime(2026, 11, 28)


def main(folder):
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    # As later releases do: Airflow 3.2 makes its API anew for each task, which takes a second.
    supervisor.in_process_api_server = functools.cache(supervisor.in_process_api_server)
    db.initdb()
    dags = bags.DagBag(folder).dags
    for number, (dag_id, dag) in enumerate(sorted(dags.items())):
        outcome = _outcome(dag.test(logical_date=DAY))
        print("OUTCOME " + json.dumps({"dag_id": dag_id, **outcome}), flush=True)
        if not number:
            # All DAGs of the folder are in the database now.
            bags.sync_bag_to_db = lambda *_, **__: None
            bags.BundleDagBag = lambda *_, **__: None


def _outcome(run):
    states = {_name(each): str(each.state) for each in run.get_task_instances()}
    with create_session() as session:
        stored = session.query(XComModel).filter_by(dag_id=run.dag_id, key="return_value").all()
        values = {_name(each): each.value for each in stored}
    return {"state": str(run.state), "states": states, "values": values}


def _name(instance):
    plain = instance.map_index < 0
    return instance.task_id if plain else f"{instance.task_id}.{instance.map_index}"
