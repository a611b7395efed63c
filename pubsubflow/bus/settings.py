"""Settings of the connection to NATS."""

from typing import Annotated

import msgspec
from msgspec import Meta

from pubsubflow.model.ranges import Bytes, Seconds


class BusSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The servers, the credentials and the limits of one connection to NATS.

    Args:
        url: One or more server addresses, separated by commas; ``tls://`` requires an
            encrypted connection.
        token: The shared token of the servers.
        token_file: Path of a file with the token, read for every connection.
        user: A user name, together with ``password``.
        password: The password of ``user``.
        password_file: Path of a file with the password, read for every connection.
        credentials_file: Path of a ``.creds`` file (JWT and NKEY seed).
        nkey_file: Path of a file with an NKEY's seed.
        tls_ca_file: Path of the authority that signed the servers' certificates.
        tls_cert_file: Path of a client certificate, if the servers require one.
        tls_key_file: Path of the key of ``tls_cert_file``.
        name: The connection's name in NATS's monitoring.
        replicas: Number of servers that keep each stream; 1, 3 or 5. By default 3 on a cluster, as
            soon as it has so many servers, and 1 otherwise.
        connect_seconds: Time limit of the first connection.
        buffer_bytes: Limit of data that waits for the socket, also while disconnected.
    """

    url: str = "nats://127.0.0.1:4222"
    token: str | None = None
    token_file: str | None = None
    user: str | None = None
    password: str | None = None
    password_file: str | None = None
    credentials_file: str | None = None
    nkey_file: str | None = None
    tls_ca_file: str | None = None
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    name: str = "pubsubflow"
    replicas: Annotated[int, Meta(ge=1, le=5)] | None = None
    connect_seconds: Seconds = 10.0
    buffer_bytes: Bytes = 64 * 1024 * 1024

    def __repr__(self) -> str:
        return f"BusSettings({', '.join(map(without_credentials, self.urls))})"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("url", ", ".join(map(without_credentials, self.urls)))]

    @property
    def encrypted(self) -> bool:
        """Whether an encrypted connection is required."""
        tls = self.tls_ca_file is not None or self.tls_cert_file is not None
        return tls or any(url.startswith("tls://") for url in self.urls)

    @property
    def urls(self) -> list[str]:
        """The server addresses."""
        return [part.strip() for part in self.url.split(",") if part.strip()]


def without_credentials(url: str) -> str:
    """Return a URL without its user and password."""
    scheme, separator, rest = url.rpartition("://")
    return scheme + separator + rest.rpartition("@")[2]
