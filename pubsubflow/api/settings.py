"""What can be set about the API."""

from ipaddress import ip_address
from typing import Annotated

from msgspec import Meta, Struct

from pubsubflow.errors import ConfigError

Port = Annotated[int, Meta(ge=0, le=65535)]
AtLeastOne = Annotated[int, Meta(ge=1)]


class ApiSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Say where the API listens and what it takes.

    Attributes:
        host: Address to listen on.
        port: TCP port; 0 for a free one.
        max_body_bytes: A larger request is refused while it is read.
        max_events: Events in one request at most.
        drain_seconds: How long requests may take to end when the daemon stops.
    """

    host: str = "127.0.0.1"
    port: Port = 8080
    max_body_bytes: AtLeastOne = 1 << 20
    max_events: AtLeastOne = 1000
    drain_seconds: Annotated[float, Meta(gt=0)] = 5.0


def check_host(host: str) -> None:
    """Let the API listen on this machine alone, as long as nobody has to show a token.

    Raises:
        ConfigError: The host is reachable from elsewhere.
    """
    if not is_local(host):
        raise ConfigError(
            f"--host {host} would let other machines in, and that needs a token, which this "
            "version does not have: keep --host 127.0.0.1, and reach it through an SSH tunnel or "
            "a proxy that checks who asks"
        )


def is_local(host: str) -> bool:
    """Whether an address belongs to this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
