"""Peers that are used as a library: a worker program, and a client program that sends to it."""

import subprocess
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from benchmarks.peers.peer import Peer, Site
from benchmarks.peers.senders import ClientProgram


class LibraryPeer(Peer):
    """A peer that is a library: its program has the modes `prepare`, `worker` and `client`.

    The client is not killed with the peer: it is what sends from outside.

    Attributes:
        program: In `programs/`. As a worker it makes the site's file `ready` once it takes work.
    """

    program: ClassVar[str]

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._client: ClientProgram | None = None

    @abstractmethod
    def address(self) -> str:
        """Return the address of what the library connects to, as it wants it."""

    def place(self) -> None:
        """Place the program and set its variables."""
        self._path: Path = self.site.place_program(self.program)
        self.site.environ["PEERS_ADDRESS"] = self.address()

    def prepare(self) -> None:
        """Place the program and have it make its tables."""
        self.place()
        with (self.site.folder / "prepare.log").open("wb") as log:
            subprocess.run(
                self.order("prepare"),
                env=self.site.environ,
                cwd=self.site.folder,
                check=True,
                stdout=log,
                stderr=log,
            )

    def order(self, mode: str) -> list[str]:
        """Return the command of a mode of the program."""
        return [str(self.site.environment.python), str(self._path), mode]

    def is_ready(self) -> bool:
        """Return whether the worker says that it takes work."""
        return self.site.ready.exists()

    def send(self, workload: str, keys: Sequence[str]) -> None:
        """Have the client enqueue a workload for each key."""
        self._sender().call(workload=workload, keys=list(keys))

    def post(self, count: int, clients: int) -> float:
        """Have the client enqueue what no worker takes."""
        return float(self._sender().call(count=count, clients=clients))

    def close(self) -> None:
        """End the client."""
        if self._client is not None:
            self._client.close()

    def _sender(self) -> ClientProgram:
        if self._client is None:
            log = self.site.folder / "client.log"
            self._client = ClientProgram(self.order("client"), self.site.environ, log)
        return self._client
