"""A nats-server of our own, as a child process on a free loopback port."""

import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest

from pubsubflow.bus import Bus, BusSettings

TOKEN = "sesame"


def find_free_ports(count):
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class Server:
    """A nats-server that can be killed and started again on the same port and store."""

    def __init__(self, folder: Path):
        self.port = find_free_ports(1)[0]
        self.folder = folder
        self.url = f"nats://127.0.0.1:{self.port}"
        self.process = None
        self.extra = ""

    @property
    def settings(self):
        return BusSettings(url=self.url, token=TOKEN)

    def start(self, *, jetstream=True):
        binary = Path(sys.executable).with_name("nats-server")
        config = self.folder / "nats.conf"
        lines = [
            f'listen: "127.0.0.1:{self.port}"',
            f'authorization {{ token: "{TOKEN}" }}',
            "max_payload: 262144",
            self.extra,
        ]
        if jetstream:
            lines.append(f'jetstream {{ store_dir: "{self.folder}/store" }}')
        config.write_text("\n".join(lines))
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
def free_ports():
    return find_free_ports


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


class Collector:
    """Keeps what it is called with and lets tests wait for a number of calls."""

    def __init__(self, then=None):
        self.items = []
        self._then = then
        self._news = anyio.Event()

    def __call__(self, item=None):
        self.items.append(item)
        if self._then is not None:
            self._then(item)
        self._news.set()

    async def wait_for(self, count, seconds=10):
        with anyio.fail_after(seconds):
            while len(self.items) < count:
                self._news = anyio.Event()
                await self._news.wait()
        return self.items


@pytest.fixture
def collector():
    return Collector


@pytest.fixture
def make_server(tmp_path):
    """Make servers that are not started yet; all are stopped at the end."""
    servers = []

    def make():
        folder = tmp_path / f"server{len(servers)}"
        folder.mkdir()
        servers.append(Server(folder))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def start_nats(tmp_path):
    """Start a nats-server that listens on a port, with these lines in its configuration."""
    with ExitStack() as stack:

        def start(port, lines):
            config = tmp_path / f"nats-{port}.conf"
            config.write_text("\n".join([f'listen: "127.0.0.1:{port}"', *lines]))
            output = stack.enter_context((tmp_path / "nats.log").open("ab"))
            process = subprocess.Popen(
                [Path(sys.executable).with_name("nats-server"), "-c", config],
                stdout=output,
                stderr=output,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield start
