"""pubsubflow itself: `pubsubflow up` with its own NATS and PostgreSQL, as this checkout is."""

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import ClassVar

from benchmarks.peers.adapters.served import ServedPeer
from benchmarks.peers.environment import Environment
from benchmarks.peers.senders import rate_of

_EVENTS = "/api/v1/datasets/events"


class Pubsubflow(ServedPeer):
    """One daemon with all roles; its servers are killed with it."""

    name = "pubsubflow"
    settings: ClassVar[Mapping[str, Mapping[str, str]]] = {"default": {}}
    needs_database = False

    @classmethod
    def own_environment(cls) -> Environment:
        """Return this process's environment: the checkout is what is measured."""
        return cls.here(metadata.version("pubsubflow"))

    def prepare(self) -> None:
        """Place the DAG file."""
        self._dags = self.site.place_program("pubsubflow_dags.py").parent

    def commands(self) -> Mapping[str, Sequence[str]]:
        """Return the daemon."""
        program = self.site.environment.program("pubsubflow")
        home = str(self.site.folder / "home")
        return {"up": [program, "up", str(self._dags), "--home", home, "--port", str(self.port)]}

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
