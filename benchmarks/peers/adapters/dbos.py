"""DBOS: durable workflows as a library on PostgreSQL. A workflow enqueues the next one."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from benchmarks.peers.adapters.library import LibraryPeer


class Dbos(LibraryPeer):
    """One process that takes workflows from a queue; a client enqueues them by the library."""

    name = "dbos"
    program = "dbos_workflows.py"
    settings: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "default": {"PEERS_POLL_SECONDS": "1.0"},
        "tuned": {"PEERS_POLL_SECONDS": "0.05"},
    }

    def address(self) -> str:
        """Return the database's address."""
        return self.site.database.url()

    def commands(self) -> Mapping[str, Sequence[str]]:
        """Return the process."""
        return {"worker": self.order("worker")}
