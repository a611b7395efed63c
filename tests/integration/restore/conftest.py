"""A nats-server of a test's own."""

import pytest

from support.servers import NatsServer


@pytest.fixture
def server(tmp_path):
    """A nats-server whose store can be taken back."""
    server = NatsServer(tmp_path)
    server.start()
    yield server
    server.stop()
