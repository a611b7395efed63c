"""The processes of the Compose file, started here as its containers would be."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.compose import read_compose
from support.servers import NATS_SERVER, find_free_ports

DAGS = Path(__file__).with_name("dags")
PROGRAMS = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
NODES = ("nats-1", "nats-2", "nats-3")
START_SECONDS = 60
STOP_SECONDS = 45


class ComposeProcesses:
    """Services of the Compose file as processes: same commands, same environment, on loopback.

    Hosts become ports, volumes become folders; all else is as it stands there.

    Args:
        folder: For what its volumes hold.
        postgres: The settings of the database that stands for its Postgres.
    """

    def __init__(self, folder, postgres):
        self.services = read_compose()["services"]
        self.port, *ports = find_free_ports(10)
        self.folder = folder
        self._postgres = postgres
        clients, routes, monitors = (ports[number::3] for number in range(3))
        self._ports = {}
        for number, node in enumerate(NODES):
            self._ports[node] = (clients[number], monitors[number])
            self._ports |= {f"{node}:4222": clients[number], f"{node}:6222": routes[number]}
        self.running = {}

    def here(self, text, node=""):
        """Return a text of the file with this machine's addresses and folders."""
        for address, port in self._ports.items():
            if ":" in address:
                text = re.sub(rf"\b{address}\b", f"127.0.0.1:{port}", text)
        if node:
            text = text.replace("0.0.0.0:6222", f"127.0.0.1:{self._ports[f'{node}:6222']}")
            text = text.replace("8222", str(self._ports[node][1]))
            text = text.replace("/data", str(self.folder / node))
        text = text.replace("0.0.0.0", "127.0.0.1").replace("8080", str(self.port))
        return re.sub(r"(?<![\w/])/dags\b", str(DAGS), text)

    def environment(self, name):
        """Return the environment of a service's container."""
        found = {each: self.here(value) for each, value in self._service(name).items()}
        if "PUBSUBFLOW__POSTGRES__URL" in found:
            secret = re.search(r":([^:@]+)@", self._postgres.url)
            found["PUBSUBFLOW__POSTGRES__URL"] = self._postgres.url.replace(secret[0], "@")
            found["PUBSUBFLOW__POSTGRES__PASSWORD"] = secret[1]
        kept = {name: value for name, value in os.environ.items() if name.startswith("LD_")}
        found |= kept | {
            "PATH": PROGRAMS,
            "PUBSUBFLOW_HOME": str(self.home(name)),
            "PUBSUBFLOW__LOG__FORMAT": "json",
            "PUBSUBFLOW__WORKER__RUN_AS": "",
            "PUBSUBFLOW__API__PORT": str(self.port),
        }
        return found

    def _service(self, name):
        return self.services[name].get("environment", {})

    def home(self, name):
        """Return what is mounted at the home: one volume for all but workers."""
        mounts = [each.split(":") for each in self.services[name].get("volumes", ())]
        volume = {target: source for source, target, *_ in mounts}.get("/var/lib/pubsubflow", name)
        path = self.folder / volume
        path.mkdir(exist_ok=True)
        return path

    def start_nats(self):
        for node in NODES:
            words = shlex.split(self.here(self.services[node]["command"], node))
            words += ["--addr", "127.0.0.1", "--port", str(self._ports[node][0])]
            self._start(node, [str(NATS_SERVER), *words], dict(os.environ))

    def set_up(self):
        """Run the service that ends by itself."""
        (script,) = self.services["setup"]["command"]
        command = [*self.services["setup"]["entrypoint"], script]
        environ = self.environment("setup")
        subprocess.run(command, env=environ, check=True, timeout=START_SECONDS, cwd=self.folder)

    def start(self, name, *, as_name="", **environ):
        """Start a daemon or a worker."""
        words = self.here(self.services[name]["command"]).split()
        as_name = as_name or name
        home = self.folder / as_name if as_name != name else self.home(name)
        home.mkdir(exist_ok=True)
        whole = self.environment(name) | {"PUBSUBFLOW_HOME": str(home)} | environ
        return self._start(as_name, ["pubsubflow", *words], whole)

    def _start(self, name, command, environ):
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command, env=environ, stdout=log, stderr=log, cwd=self.folder
            )
        return self.running[name]

    def is_healthy(self, name):
        """Run the health check of a service."""
        kind, *command = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        command = [sys.executable if each == "python3" else self.here(each) for each in command]
        done = subprocess.run(command, capture_output=True, check=False, timeout=START_SECONDS)
        return done.returncode == 0

    def until_healthy(self, name):
        """Wait until its port is open and its health check passes."""
        until = time.monotonic() + START_SECONDS
        while not (self._listens() and self.is_healthy(name)):
            assert self.running[name].poll() is None, self.log(name)
            assert time.monotonic() < until, self.log(name)
            time.sleep(0.1)

    def _listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(encoding="utf-8")

    def logged(self, name, event):
        """Return the first line of a log about an event."""
        lines = [json.loads(line) for line in self.log(name).splitlines() if line[:1] == "{"]
        return next(line for line in lines if line["event"] == event)

    def close(self):
        """Stop what uses the servers first."""
        ours = [each for name, each in self.running.items() if name not in NODES]
        for family in (ours, [self.running[name] for name in NODES if name in self.running]):
            for process in family:
                if process.poll() is None:
                    process.terminate()
            for process in family:
                process.wait(STOP_SECONDS)


@pytest.fixture
def composed(postgres, tmp_path):
    processes = ComposeProcesses(tmp_path, postgres)
    try:
        yield processes
    finally:
        processes.close()
