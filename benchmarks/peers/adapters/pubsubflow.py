"""pubsubflow itself, as this checkout is: on servers of its own, or on the suite's PostgreSQL."""

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import ClassVar

from benchmarks.peers.adapters.served import ServedPeer
from benchmarks.peers.environment import Environment
from benchmarks.peers.peer import Site
from benchmarks.peers.ports import free_port
from benchmarks.peers.senders import rate_of
from pubsubflow.embedded import PostgresAddress
from pubsubflow.embedded.binaries import find_nats
from pubsubflow.embedded.home import Home
from pubsubflow.embedded.settings import DATABASE, PORT, SUPERUSER

_EVENTS = "/api/v1/datasets/events"
_SERVERS = "PEERS_POSTGRES"
_TOKEN = "peers"
_NATS = """
listen: "127.0.0.1:{port}"
authorization {{ token: "{token}" }}
jetstream {{ store_dir: "{folder}" }}
"""


class Pubsubflow(ServedPeer):
    """One daemon with all roles: `up` starts its servers; `daemon` uses the suite's PostgreSQL."""

    name = "pubsubflow"
    settings: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "default": {},
        "same-postgres": {_SERVERS: "suite"},
    }

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._home = site.folder / "home"
        self._own_servers = _SERVERS not in site.environ

    @classmethod
    def own_environment(cls) -> Environment:
        """Return this process's environment: the checkout is what is measured."""
        return cls.here(metadata.version("pubsubflow"))

    @classmethod
    def needs_database(cls, settings: str) -> bool:
        """Return whether these settings have it use the suite's PostgreSQL."""
        return _SERVERS in cls.settings[settings]

    def prepare(self) -> None:
        """Place the DAG file, and the configuration of a NATS beside the daemon."""
        self._dags = self.site.place_program("pubsubflow_dags.py").parent
        if self._own_servers:
            return
        port = free_port()
        self._nats = self.site.folder / "nats.conf"
        self._nats.write_text(
            _NATS.format(port=port, token=_TOKEN, folder=self.site.folder / "nats")
        )
        self.site.environ |= {
            "PUBSUBFLOW__NATS__URL": f"nats://127.0.0.1:{port}",
            "PUBSUBFLOW__NATS__TOKEN": _TOKEN,
            "PUBSUBFLOW__POSTGRES__URL": self.site.database.url(),
        }

    def commands(self) -> Mapping[str, Sequence[str]]:
        """Return the daemon, and its NATS unless it starts that itself."""
        program = self.site.environment.program("pubsubflow")
        options = [str(self._dags), "--home", str(self._home), "--port", str(self.port)]
        if self._own_servers:
            return {"up": [program, "up", *options]}
        return {
            "nats": [str(find_nats()), "-c", str(self._nats)],
            "daemon": [program, "daemon", *options],
        }

    def postgres_dsn(self) -> str:
        """Return the address of its PostgreSQL or of the suite's."""
        if not self._own_servers:
            return self.site.database.url()
        data = str(self._home / "postgres" / "data")
        password = Home(self._home).secrets().postgres_password
        return PostgresAddress(data, PORT, SUPERUSER, password, DATABASE).dsn

    def is_ready(self) -> bool:
        """Return whether `/readyz` says so."""
        return self.http.answers("/readyz")

    def send(self, workload: str, keys: Sequence[str]) -> None:
        """Post an event for each key, with the key as its id."""
        self.http.call("POST", _EVENTS, [_event(workload, key) for key in keys])

    def post(self, count: int, clients: int) -> float:
        """Post events of a dataset without subscribers, one by one."""
        body = {"dataset": "peers://unheard"}
        return rate_of(self.http, _EVENTS, lambda: body, count, clients)


def _event(workload: str, key: str) -> dict[str, object]:
    return {"dataset": f"peers://{workload}", "extra": {"key": key}, "id": f"{workload}-{key}"}
