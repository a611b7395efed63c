"""A nats-server of our own, as a child process on a free loopback port."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from pubsubflow.bus import Bus, BusSettings

TOKEN = "sesame"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A nats-server that can be killed and started again on the same port and store."""

    def __init__(self, folder: Path):
        self.port = free_port()
        self.folder = folder
        self.url = f"nats://127.0.0.1:{self.port}"
        self.process = None

    @property
    def settings(self):
        return BusSettings(url=self.url, token=TOKEN)

    def start(self):
        binary = Path(sys.executable).with_name("nats-server")
        config = self.folder / "nats.conf"
        config.write_text(
            f'listen: "127.0.0.1:{self.port}"\n'
            f'authorization {{ token: "{TOKEN}" }}\n'
            f'jetstream {{ store_dir: "{self.folder}/store" }}\n'
            f"max_payload: 262144\n"
        )
        with (self.folder / "nats.log").open("ab") as output:
            self.process = subprocess.Popen(
                [str(binary), "-c", str(config)], stdout=output, stderr=output
            )

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def bus(server):
    async with Bus.connect(server.settings) as bus:
        await bus.ensure_streams()
        yield bus


@pytest.fixture
async def group():
    """A task group for services; cancelled at the end."""
    async with anyio.create_task_group() as group:
        yield group
        group.cancel_scope.cancel()
