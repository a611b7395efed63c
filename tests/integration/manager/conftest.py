"""Managers on real servers, and a worker moved by hand."""

import pytest
from core_rig import running
from emptied_database import emptied, emptied_database  # noqa: F401 - fixtures


@pytest.fixture
async def rig(database, bus, nats):
    async with running(database, bus, nats) as rig:
        yield rig


@pytest.fixture
async def pair(database, bus, nats):
    """Two managers that share the work."""
    async with running(database, bus, nats, managers=2) as rig:
        yield rig
