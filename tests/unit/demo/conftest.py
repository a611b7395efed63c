"""The demo's database, measured as its DAGs do it."""

import shutil

import pytest

from pubsubflow.demo import flights, scenario


@pytest.fixture(scope="session")
def measured(tmp_path_factory):
    """A folder with the demo's file checked, loaded and measured as the DAGs do it."""
    folder = tmp_path_factory.mktemp("measured")
    database, accepted = folder / "flights.db", folder / "accepted.csv"
    quality = flights.check_file(scenario.data_file(), accepted)
    flights.load_file(accepted, database, "nyc_hours.csv", quality["rejected"])
    rows = [
        row for month in flights.months(database) for row in flights.measure_month(database, month)
    ]
    flights.store_months(database, rows)
    flights.store_weather(database)
    return folder


@pytest.fixture
def database(measured, tmp_path):
    """A copy of the measured database, beside its checked file."""
    shutil.copytree(measured, tmp_path, dirs_exist_ok=True)
    return tmp_path / "flights.db"
