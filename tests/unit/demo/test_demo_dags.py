import importlib.util
import sqlite3

import pytest

from pubsubflow import DAG, Dataset
from pubsubflow.demo import scenario


@pytest.fixture(scope="module")
def pipeline():
    path = scenario.dags_folder() / "nyc_flights.py"
    spec = importlib.util.spec_from_file_location("nyc_flights", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_scenario_names_what_the_dags_use(pipeline):
    assert pipeline.landing.uri == scenario.LANDING
    assert vars(pipeline)[scenario.REPORT_DAG].dag_id == scenario.REPORT_DAG


def test_the_file_makes_four_dags(pipeline):
    dags = {made.dag_id for made in vars(pipeline).values() if isinstance(made, DAG)}
    assert dags == {"ingest", "monthly_delays", "weather_delays", "report"}


def test_table_datasets_name_tables(pipeline, database):
    with sqlite3.connect(database) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()
    uris = {made.uri for made in vars(pipeline).values() if isinstance(made, Dataset)}
    named = {uri.rpartition("/")[2] for uri in uris if uri.startswith("sqlite:")}
    assert named == {"airport_hours", "monthly_delays", "weather_delays"}
    assert named <= tables
