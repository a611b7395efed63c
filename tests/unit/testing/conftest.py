import importlib.util

import pytest

from pubsubflow.demo import story


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def pipeline():
    """The demo's DAG file as a module."""
    path = story.dags_folder() / "nyc_flights.py"
    spec = importlib.util.spec_from_file_location("nyc_flights", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
