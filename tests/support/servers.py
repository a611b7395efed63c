"""Servers of one test's own: nats-server as a child process, and HTTP on a free port."""

import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import anyio
from aiohttp import web

from pubsubflow.bus import BusSettings

TOKEN = "sesame"
DEFAULTS = (f'authorization {{ token: "{TOKEN}" }}', "max_payload: 262144")
NATS_SERVER = Path(sys.executable).with_name("nats-server")


def find_free_ports(count):
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class NatsServer:
    """A nats-server that can be killed and started again on the same port and store.

    Args:
        folder: For its configuration, log and store.
        port: A free one if none is given.
        lines: Its configuration besides address and store; by default it requires `TOKEN`.
    """

    def __init__(self, folder, *, port=None, lines=DEFAULTS):
        self.port = port or find_free_ports(1)[0]
        self.url = f"nats://127.0.0.1:{self.port}"
        self.process = None
        self.lines = [*lines]
        self._folder = folder

    @property
    def settings(self):
        return BusSettings(url=self.url, token=TOKEN)

    def start(self, *, jetstream=True):
        config = self._folder / f"nats-{self.port}.conf"
        lines = [f'listen: "127.0.0.1:{self.port}"', *self.lines]
        if jetstream:
            lines.append(f'jetstream {{ store_dir: "{self._folder}/store" }}')
        config.write_text("\n".join(lines))
        with (self._folder / "nats.log").open("ab") as output:
            self.process = subprocess.Popen(
                [NATS_SERVER, "-c", config], stdout=output, stderr=output
            )

    def kill(self):
        self._end(signal.SIGKILL)

    def stop(self):
        self._end(signal.SIGTERM)

    def _end(self, number):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait()


@asynccontextmanager
async def http_server(path, handler):
    """Serve POST requests to a path; give the server's URL."""
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post(path, handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()
