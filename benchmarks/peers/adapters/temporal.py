"""Temporal: its development server, which keeps what it knows in SQLite, and one worker."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from benchmarks.peers.adapters.library import LibraryPeer
from benchmarks.peers.peer import Site
from benchmarks.peers.ports import free_port


class Temporal(LibraryPeer):
    """A workflow starts the next one as a child that outlives it; a client starts the first."""

    name = "temporal"
    program = "temporal_workflows.py"
    settings: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "default": {
            "PEERS_ACTIVITY_SECONDS": "60",
            "PEERS_STICKY_SECONDS": "10",
            "PEERS_SANDBOX": "1",
        },
        "tuned": {
            "PEERS_ACTIVITY_SECONDS": "5",
            "PEERS_STICKY_SECONDS": "1",
            "PEERS_SANDBOX": "",
        },
    }

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._port = free_port()

    @classmethod
    def needs_database(cls, settings: str) -> bool:
        """Return that it brings SQLite: its development server knows nothing else."""
        del settings
        return False

    def postgres_dsn(self) -> None:
        """Return that it has none."""

    def address(self) -> str:
        """Return the server's address."""
        return f"127.0.0.1:{self._port}"

    def prepare(self) -> None:
        """Place the program; the server makes its tables."""
        self.place()

    def commands(self) -> Mapping[str, Sequence[str]]:
        """Return the server, and the worker, which waits for it."""
        return {
            "server": [
                self.site.environment.program("temporal"),
                *("server", "start-dev", "--headless", "--ip", "127.0.0.1"),
                *("--port", str(self._port), "--log-level", "error"),
                *("--db-filename", str(self.site.folder / "temporal.db")),
                *("--sqlite-pragma", "journal_mode=wal", "--sqlite-pragma", "synchronous=2"),
            ],
            "worker": self.order("worker"),
        }
