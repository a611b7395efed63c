"""Peers with an HTTP server, which is how the suite sends to them."""

from benchmarks.peers.peer import Peer, Site
from benchmarks.peers.ports import free_port
from benchmarks.peers.senders import Http


class ServedPeer(Peer):
    """A peer with an HTTP server.

    Attributes:
        port: On which it has to listen.
        http: Client of it.
    """

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.port = free_port()
        self.http = Http(self.port)

    def close(self) -> None:
        """Close the connections to it."""
        self.http.close()
