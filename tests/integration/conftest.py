"""A running manager, for the tests of what stands beside it."""

import pytest

from pubsubflow.manager import Manager
from support.harness import running


@pytest.fixture
async def manager(database, bus):
    async with running(Manager(database=database, bus=bus)) as manager:
        yield manager
