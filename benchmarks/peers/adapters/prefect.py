"""Prefect: its server and one process that serves all deployments, on PostgreSQL."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from benchmarks.peers.adapters.served import ServedPeer
from benchmarks.peers.peer import Site
from benchmarks.peers.senders import rate_of

_BY_EVENT = ("one", "slow", "fan")
# Workload that is requested as a run → its flow and deployment.
_DEPLOYMENTS = {"pair": "pair/pair", "chain": "chain/chain_0", "ten": "ten/ten"}
_NEEDED = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PEERS_LIMIT": "5",
}
_TUNED = {
    "PREFECT_RUNNER_POLL_FREQUENCY": "1",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PEERS_LIMIT": "8",
}


class Prefect(ServedPeer):
    """Events start `one`, `slow` and `fan` by automations, flow runs of the API the others."""

    name = "prefect"
    settings: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "default": _NEEDED,
        "tuned": {**_NEEDED, **_TUNED},
    }

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._deployments: dict[str, str] = {}

    def prepare(self) -> None:
        """Place the flows; the server makes the tables."""
        self._flows = str(self.site.place_program("prefect_flows.py"))
        self.site.environ |= {
            "PREFECT_HOME": str(self.site.folder / "home"),
            "PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api",
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(self.port),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": self.site.database.url("postgresql+asyncpg"),
        }

    def commands(self) -> Mapping[str, Sequence[str]]:
        """Return the server, and the process that serves flows and waits for the server."""
        environment = self.site.environment
        return {
            "server": [environment.program("prefect"), "server", "start"],
            "serve": [str(environment.python), self._flows],
        }

    def is_ready(self) -> bool:
        """Return whether the server is healthy, and the deployments are made and served."""
        if not (self.site.ready.exists() and self.http.answers("/api/health")):
            return False
        try:
            for workload, name in _DEPLOYMENTS.items():
                found = self.http.call("GET", f"/api/deployments/name/{name}")
                self._deployments[workload] = found["id"]
        except OSError:
            return False
        return True

    def send(self, workload: str, keys: Sequence[str]) -> None:
        """Post an event, or a flow run, for each key."""
        if workload in _BY_EVENT:
            self.http.call("POST", "/api/events", [_event(workload, key) for key in keys])
            return
        deployment = self._deployments[workload]
        for key in keys:
            body = {
                "parameters": {"key": key},
                "state": {"type": "SCHEDULED"},
                "idempotency_key": key,
            }
            self.http.call("POST", f"/api/deployments/{deployment}/create_flow_run", body)

    def post(self, count: int, clients: int) -> float:
        """Post events that match no automation."""

        def body() -> list[dict[str, Any]]:
            return [_event("unheard", str(uuid.uuid4()))]

        return rate_of(self.http, "/api/events", body, count, clients)


def _event(workload: str, key: str) -> dict[str, Any]:
    return {
        "occurred": datetime.now(UTC).isoformat(),
        "event": f"peers.{workload}",
        "resource": {"prefect.resource.id": f"peers.{workload}"},
        "payload": {"key": key},
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{workload}-{key}")),
    }
