"""What can be set about the API."""

from ipaddress import ip_address
from pathlib import Path
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
        tls_cert: File of the certificate and those that vouch for it, in PEM; plain HTTP without.
        tls_key: File of its key; in the certificate's file if left out.
        audit_days: How long it is kept who did what.
    """

    host: str = "127.0.0.1"
    port: Port = 8080
    max_body_bytes: AtLeastOne = 1 << 20
    max_events: AtLeastOne = 1000
    drain_seconds: Annotated[float, Meta(gt=0)] = 5.0
    tls_cert: Path | None = None
    tls_key: Path | None = None
    audit_days: AtLeastOne = 365


def check_reach(host: str, *, tokens: bool) -> None:
    """Let the API listen beyond this machine only where somebody can show a token.

    Args:
        host: Where it listens.
        tokens: Whether there is a token that counts.

    Raises:
        ConfigError: The host is reachable from elsewhere, and there is none.
    """
    if not (tokens or is_local(host)):
        raise ConfigError(
            f"--host {host} would let other machines in, and there is no token that they could show"
            ": make one with `pubsubflow tokens create NAME --role admin` (with the same --home or "
            "--postgres-url), or keep --host 127.0.0.1"
        )


def is_local(host: str) -> bool:
    """Whether an address belongs to this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
