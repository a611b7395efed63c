"""The demo's DAG file, for tests of test support."""

import importlib.util

import pytest

from pubsubflow.demo import scenario


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def pipeline():
    """The demo's DAG file as a module."""
    path = scenario.dags_folder() / "nyc_flights.py"
    spec = importlib.util.spec_from_file_location("nyc_flights", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
