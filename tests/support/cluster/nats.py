"""NATS as a cluster of three servers, of which each can be killed, frozen and cut off."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import msgspec

from pubsubflow.bus import Bus, BusSettings
from pubsubflow.bus.streams import STREAMS
from pubsubflow.embedded import server_exec
from pubsubflow.errors import PubsubflowError
from support.servers import NATS_SERVER, TOKEN, find_free_ports

HEALTHY_SECONDS = 400
"""A replica that NATS takes to be ahead of its leader waits for a snapshot, minutes at worst."""
GROUPS = (
    *(f"STREAM.LEADER.STEPDOWN.{stream}" for stream in STREAMS),
    "CONSUMER.LEADER.STEPDOWN.PSF_IN.managers",
    "CONSUMER.LEADER.STEPDOWN.PSF_TASK.default-sync",
    "CONSUMER.LEADER.STEPDOWN.PSF_TASK.default-async",
)
"""What has a leader, by the request that it steps down; that of the cluster dies by kills."""
_ELECTED = re.compile(
    r"^\[\d+\] (\S+ \S+) .*new (?:stream|consumer) leader for '\$G > PSF_(?:IN|TASK)\b",
    re.MULTILINE,
)


class NatsNode:
    """One server. It ends with us.

    Args:
        name: Of the machine and the server.
        host: Where it listens, for clients and for its peers.
        prefix: Of its command: puts it into a network of its own.
        folder: For its configuration, log and store.
    """

    def __init__(self, name: str, host: str, prefix: Sequence[str], folder: Path):
        self.name = name
        self.port, self._route_port = find_free_ports(2)
        self.route = f"nats://{host}:{self._route_port}"
        self.url = f"nats://{host}:{self.port}"
        self.process: subprocess.Popen | None = None
        self._host = host
        self._prefix = prefix
        self._folder = folder

    def configure(self, routes: Sequence[str]):
        """Write its configuration."""
        peers = ", ".join(f'"{route}"' for route in routes)
        listen = f"{self._host}:{self._route_port}"
        lines = (
            f'server_name: "{self.name}"',
            "logtime_utc: true",
            f'listen: "{self._host}:{self.port}"',
            f'authorization {{ token: "{TOKEN}" }}',
            f'jetstream {{ store_dir: "{self._folder}/{self.name}" }}',
            f'cluster {{ name: psf, listen: "{listen}", routes: [{peers}] }}',
        )
        self._config.write_text("\n".join(lines))

    @property
    def _config(self) -> Path:
        return self._folder / f"{self.name}.conf"

    def start(self):
        begin = (os.getpid(), -1, -1, signal.SIGKILL.value, -1, NATS_SERVER)
        with (self._folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(*self._prefix, sys.executable, "-I", "-S", server_exec.__file__),
                    *(*map(str, begin), "-c", self._config),
                ],
                stdout=log,
                stderr=log,
            )

    def elections(self) -> list[float]:
        text = (self._folder / f"{self.name}.log").read_text(errors="replace")
        return [
            datetime.strptime(moment, "%Y/%m/%d %H:%M:%S.%f").replace(tzinfo=UTC).timestamp()
            for moment in _ELECTED.findall(text)
        ]

    def send(self, number: int):
        self.process.send_signal(number)

    def end(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        if self.process is not None:
            self.process.wait()


class NatsCluster:
    """Three servers; a context manager.

    Args:
        network: Where they are.
        names: Theirs.
        folder: For all that they write.
    """

    def __init__(self, network, names: Sequence[str], folder: Path):
        folder.mkdir()
        self.nodes = [
            NatsNode(name, network.address(name), network.prefix(name), folder) for name in names
        ]
        url = ",".join(node.url for node in self.nodes)
        self.settings = BusSettings(url=url, token=TOKEN, connect_seconds=60)

    async def __aenter__(self):
        try:
            for node in self.nodes:
                node.configure([each.route for each in self.nodes])
                node.start()
            await self.until_healthy()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_):
        for node in self.nodes:
            node.end()

    async def until_healthy(self):
        """Return when each stream has a leader and all its replicas are up to date."""
        state: list[Any] = []
        with anyio.move_on_after(HEALTHY_SECONDS):
            while True:
                try:
                    state = await self._replicas()
                except PubsubflowError as error:
                    state = [error]
                else:
                    if all(state):
                        return
                await anyio.sleep(0.2)
        raise AssertionError(f"the cluster has not come to rest: {state}")

    async def _replicas(self) -> list[bool]:
        """Return for each stream whether it has a leader and peers that are up to date."""
        found = []
        async with Bus.connect(self.settings) as bus:
            await bus.ensure_streams()
            for stream in STREAMS:
                cluster = await _cluster(bus, stream)
                peers = [
                    each["current"] and not each.get("offline") for each in cluster["replicas"]
                ]
                found.append("leader" in cluster and peers == [True] * (len(self.nodes) - 1))
        return found

    async def leader(self, stream: str) -> NatsNode:
        """Return the server that leads a stream."""
        async with Bus.connect(self.settings) as bus:
            name = (await _cluster(bus, stream))["leader"]  # there is one between two faults
        return next(node for node in self.nodes if node.name == name)

    def elections(self) -> list[float]:
        """Return when streams and consumers that tasks go through got leaders, since 1970."""
        return sorted(moment for node in self.nodes for moment in node.elections())

    async def step_down(self, group: str) -> bool:
        """Have the leader of one of `GROUPS` step down; return whether there was one."""
        async with Bus.connect(self.settings) as bus:
            try:
                answer = msgspec.json.decode(await bus.request(f"$JS.API.{group}", b"", 1))
            except PubsubflowError:
                return False  # there is an election
            return answer.get("success", False)


async def _cluster(bus: Bus, stream: str) -> dict[str, Any]:
    answer = await bus.request(f"$JS.API.STREAM.INFO.{stream}", b"", 5)
    return msgspec.json.decode(answer).get("cluster", {"replicas": []})
