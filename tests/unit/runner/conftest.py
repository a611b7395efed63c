"""Backend of the async tests of runners."""

import pytest


@pytest.fixture
def anyio_backend():
    return "asyncio"
