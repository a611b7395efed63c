"""Cluster: hops of two daemons on three NATS servers with streams of three replicas.

The floor is the bare loop of `benchmarks.floor` on the same servers, with as many replicas.
"""

import contextlib
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import nats
from msgspec import Struct
from nats.errors import Error

from benchmarks import floor
from benchmarks.figures import figure, spread
from benchmarks.hot_path import hop
from benchmarks.peers.database import database
from benchmarks.peers.ports import free_port
from benchmarks.peers.processes import Group
from benchmarks.stack import DAGS, Moments, post
from pubsubflow.embedded.binaries import find_nats

SERVERS = REPLICAS = 3
DAEMONS = 2
BLOCKS, BLOCK = 10, 20
_TOKEN = "benchmark"
_SECONDS = 120
_CONFIGURATION = """
server_name: n{number}
listen: "127.0.0.1:{port}"
authorization {{ token: "{token}" }}
jetstream {{ store_dir: "{folder}/n{number}" }}
cluster {{ name: bench, listen: "127.0.0.1:{route}", routes: [{routes}] }}
"""


class Addresses(Struct, frozen=True):
    """Addresses of the servers."""

    dsn: str
    nats_url: str
    nats_token: str = _TOKEN


class Cluster:
    """Two daemons; runs are started at the one, then at the other.

    Attributes:
        moments: What tasks log.
    """

    def __init__(self, urls: list[str], moments: Moments) -> None:
        self._urls = urls
        self.moments = moments

    def trigger(self, dag_id: str) -> str:
        """Start a run; return its id."""
        self._urls.reverse()
        return str(post(self._urls[0], f"/dags/{dag_id}/runs", {})["run_id"])


@contextlib.contextmanager
def _nats(folder: Path) -> Iterator[str]:
    """Run the servers; give their addresses."""
    ports = [(free_port(), free_port()) for _ in range(SERVERS)]
    routes = ", ".join(f'"nats://127.0.0.1:{route}"' for _, route in ports)
    group = Group(folder)
    for number, (port, route) in enumerate(ports):
        file = folder / f"n{number}.conf"
        values = {"number": number, "port": port, "route": route, "folder": folder}
        file.write_text(_CONFIGURATION.format(**values, token=_TOKEN, routes=routes))
        group.start(f"n{number}", [str(find_nats()), "-c", str(file)], cwd=folder)
    url = ",".join(f"nats://127.0.0.1:{port}" for port, _ in ports)
    try:
        group.wait_for(lambda: anyio.run(_has_leader, url), _SECONDS)
        yield url
    finally:
        group.stop()


async def _has_leader(url: str) -> bool:
    """Return whether JetStream makes and removes a stream with all replicas."""
    try:
        client = await nats.connect(
            url.split(","), token=_TOKEN, allow_reconnect=False, connect_timeout=1
        )
    except (OSError, Error):
        return False
    try:
        await client.jetstream(timeout=2).add_stream(
            name="probe", subjects=["probe"], num_replicas=REPLICAS
        )
        await client.jetstream().delete_stream("probe")
    except Error:
        return False
    finally:
        await client.close()
    return True


@contextlib.contextmanager
def _daemons(folder: Path, addresses: Addresses) -> Iterator[Cluster]:
    """Run the daemons, the second once the first is ready."""
    log = folder / "moments"
    log.touch()
    group, urls = Group(folder), []
    settings = {
        "PUBSUBFLOW__NATS__URL": addresses.nats_url,
        "PUBSUBFLOW__NATS__TOKEN": addresses.nats_token,
        "PUBSUBFLOW__POSTGRES__URL": addresses.dsn,
        "PUBSUBFLOW__SECRETS__KEY_FILE": str(folder / "keys"),
        "BENCH_LOG": str(log),
    }
    try:
        for number in range(DAEMONS):
            port = free_port()
            program = str(Path(sys.executable).parent / "pubsubflow")
            home = str(folder / f"home-{number}")
            command = [program, "daemon", str(DAGS), "--port", str(port), "--home", home]
            group.start(f"daemon-{number}", command, cwd=folder, environ=os.environ | settings)
            urls.append(f"http://127.0.0.1:{port}")
            group.wait_for(lambda: _is_ready(urls[-1]), _SECONDS)
        yield Cluster(urls, Moments(log))
    finally:
        group.stop()


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def run() -> list[dict[str, Any]]:
    """Measure."""
    hops: dict[str, list[float]] = {"sync": [], "async": []}
    floors: list[float] = []
    with contextlib.ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="psf-bench-")))
        folder.chmod(0o755)
        (folder / "postgres").mkdir()
        url = exits.enter_context(_nats(folder))
        server = exits.enter_context(database(folder / "postgres"))
        addresses = Addresses(server.url(), url)
        cluster = exits.enter_context(_daemons(folder, addresses))
        bare_hops = exits.enter_context(floor.opened(addresses, REPLICAS))
        time.sleep(1)
        for block in range(BLOCKS + 1):
            measured = {kind: [hop(cluster, kind) for _ in range(BLOCK)] for kind in hops}
            bare = bare_hops(BLOCK)
            if block:  # the first one warms up
                floors += bare
                for kind, values in measured.items():
                    hops[kind] += values
    least, found = spread(floors), []
    for kind, values in hops.items():
        waits = spread(values)
        for part, target in (("p50", 10), ("p99", 40)):
            name = f"two daemons, NATS with three replicas: hop, {part}, {kind}"
            more = {"spread": waits, "floor": least[part]}
            found.append(figure(name, waits[part], "ms", target=target, **more))
    return found
