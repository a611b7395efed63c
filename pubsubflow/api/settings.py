"""Settings of the API: the configuration's section `api`."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from pubsubflow.errors import ConfigError
from pubsubflow.model.ranges import Bytes, BytesOrNone, Count, Days, Port, Seconds


class ApiSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the API listens, and its limits.

    Attributes:
        host: Address to listen on.
        port: TCP port; 0 for a free one.
        max_body_bytes: A larger request body is refused while it is read.
        max_events: Events in one request at most.
        drain_seconds: How long requests may take to end when the daemon stops.
        tls_cert: File of the certificate and its chain, in PEM; plain HTTP without.
        tls_key: File of its key; in the certificate's file if left out.
        audit_days: Age at which entries of the audit log are deleted.
        session_seconds: After how long a browser has to sign in to the page again.
        max_connections: Open connections at most; beyond, the one that has waited longest for its
            client is closed, and if none waits, new ones are refused.
        max_header_bytes: A longer header line, or request line, is refused.
        max_headers: Header lines of a request at most.
        header_seconds: How long a request's head may take to arrive, and a TLS handshake.
        body_seconds: How long its body may take.
        read_seconds: How long a response may wait for a client that does not read.
        idle_seconds: After how long without a request a connection is closed.
        max_requests: Requests with events in progress; beyond, webhooks and senders that have more
            than their share are refused.
        max_calls: Callers that wait for the result of a run at once; beyond, those with more than
            their share are refused.
        max_pending_events: Refuse events while so many wait to be processed.
        max_lag_seconds: Refuse events while one has waited that long to be processed.
        max_overdue_seconds: Not ready while anything that is due has waited that long.
        min_free_bytes: Refuse events while less is free on the disk of the daemon's own servers.
        min_free_percent: The same in percent of the disk; the greater of the two applies.
    """

    host: str = "127.0.0.1"
    port: Port = 8080
    max_body_bytes: Bytes = 1 << 20
    max_events: Count = 1000
    drain_seconds: Seconds = 5.0
    max_connections: Count = 500
    max_header_bytes: Bytes = 8190
    max_headers: Count = 100
    header_seconds: Seconds = 10.0
    body_seconds: Seconds = 30.0
    read_seconds: Seconds = 30.0
    idle_seconds: Seconds = 75.0
    max_requests: Count = 256
    max_calls: Count = 200
    max_pending_events: Count = 20_000
    max_lag_seconds: Seconds = 10.0
    max_overdue_seconds: Seconds = 30.0
    min_free_bytes: BytesOrNone = 256 << 20
    min_free_percent: Annotated[float, Meta(ge=0, le=100)] = 0.0
    tls_cert: Path | None = None
    tls_key: Path | None = None
    audit_days: Days = 365
    session_seconds: Seconds = 43_200.0


def check_host_needs_token(host: str, *, tokens: bool) -> None:
    """Check that the API listens beyond this machine only if a token exists.

    Args:
        host: Where it listens.
        tokens: Whether there is a live token.

    Raises:
        ConfigError: The host is reachable from other machines, and no token exists.
    """
    if not (tokens or is_local(host)):
        raise ConfigError(
            f"--host {host} is reachable from other machines, and no token exists to protect it: "
            "create one with `pubsubflow tokens create NAME --role admin` (with the same --home or "
            "--postgres-url), or keep --host 127.0.0.1"
        )


def is_local(host: str) -> bool:
    """Whether an address belongs to this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
