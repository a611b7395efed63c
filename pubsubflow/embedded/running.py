"""Running servers of a home, found from outside of the daemon that holds it."""

from pathlib import Path

from msgspec import Struct

from pubsubflow.embedded.home import Home, read_owner
from pubsubflow.embedded.nats_server import NatsAddress, NatsServer
from pubsubflow.embedded.postgres_server import PostgresAddress, PostgresServer


class RunningServers(Struct, frozen=True):
    """The addresses of the servers that run on a home."""

    nats: NatsAddress
    postgres: PostgresAddress


def find_running(path: Path) -> RunningServers | None:
    """Return the addresses of the servers on a home; None if no daemon runs servers there.

    Raises:
        ConfigError: The home is another user's, or cannot be read.
    """
    home = Home(path)
    port = NatsServer.last_port(home)
    if read_owner(home.path) is None or not home.has_secrets or port is None:
        return None
    secrets = home.secrets()
    nats = NatsServer(home, secrets.nats_token, port)
    return RunningServers(nats.address, PostgresServer.address_on(home, secrets.postgres_password))
