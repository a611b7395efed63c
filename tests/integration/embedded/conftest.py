"""A home for embedded servers, and the log events of the code under test."""

import os

import anyio
import pytest
import structlog

collect_ignore = [] if os.geteuid() == 0 else ["test_embedded_as_root.py"]


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def new_home(tmp_path):
    """A home that is not there yet."""
    return tmp_path / "home"


@pytest.fixture
def home(tmp_path, fresh_home):
    """A home that has not been used yet."""
    return fresh_home(tmp_path / "home")


@pytest.fixture
def facts():
    """What the code under test logs, as a stream of events to wait for."""
    send, receive = anyio.create_memory_object_stream(1000)

    def forward(_logger, _method, event):
        send.send_nowait(event)
        raise structlog.DropEvent

    old = structlog.get_config()
    structlog.configure(processors=[forward])
    yield receive
    structlog.configure(**old)
    send.close()
    receive.close()
