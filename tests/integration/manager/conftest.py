"""Managers on real servers, and a worker moved by hand."""

import pytest

from support.harness import running_managers
from support.truncated_database import truncated, truncated_database  # noqa: F401 - fixtures


@pytest.fixture
async def harness(database, bus, nats):
    async with running_managers(database, bus, nats) as harness:
        yield harness


@pytest.fixture
async def pair(database, bus, nats):
    """Two managers that share the work."""
    async with running_managers(database, bus, nats, managers=2) as harness:
        yield harness
