"""Settings of the connection to Postgres."""

from typing import Annotated

from msgspec import Meta, Struct

from pubsubflow.model.ranges import Seconds


class PostgresSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the Postgres connection.

    Attributes:
        url: `postgres://user@host:port/database`, optionally with a password and libpq's parameters
            such as `sslmode=verify-full`; empty for the daemon's own server. Of several hosts,
            separated by commas, the one that takes writes is used.
        password: The user's password, in place of one in `url`.
        password_file: A file with the password, read for every connection.
        tls_ca_file: The authority that signed the server's certificate. The server must have one
            that is valid for its host name then.
        tls_cert_file: A client certificate, if the server requires one.
        tls_key_file: The key of `tls_cert_file`.
        pool_max_size: Maximum number of connections.
        lock_seconds: How long a statement may wait for a lock of another session.
        connect_seconds: Time limit of the first connection, retries included.
        host_seconds: How long each of several hosts may take to answer a new connection.
    """

    url: str = ""
    password: str | None = None
    password_file: str | None = None
    tls_ca_file: str | None = None
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    pool_max_size: Annotated[int, Meta(ge=4, le=10_000)] = 12
    lock_seconds: Seconds = 2.0
    connect_seconds: Seconds = 10.0
    host_seconds: Seconds = 2.0

    def __repr__(self) -> str:
        return "PostgresSettings(…)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return []
