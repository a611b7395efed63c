"""Procrastinate: a job queue on PostgreSQL. It has no workflows: a job defers the next one."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from benchmarks.peers.adapters.library import LibraryPeer


class Procrastinate(LibraryPeer):
    """One worker; jobs are deferred by the library, straight into PostgreSQL."""

    name = "procrastinate"
    program = "procrastinate_jobs.py"
    settings: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "default": {"PEERS_CONCURRENCY": "1", "PEERS_RETRY_STALLED": ""},
        "tuned": {"PEERS_CONCURRENCY": "8", "PEERS_RETRY_STALLED": "1"},
    }

    def address(self) -> str:
        """Return the database's address as libpq reads it."""
        return self.site.database.url()

    def commands(self) -> Mapping[str, Sequence[str]]:
        """Return the worker."""
        return {"worker": self.order("worker")}
