"""Hosts of Postgres: of several in one URL, the one that takes writes is connected to."""

import os
import socket
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
import structlog

log = structlog.get_logger(__name__)

_WRITABLE = "read-write"
# A peer that is cut off, or whose machine is off, answers nothing: without these the kernel would
# wait for it for a quarter of an hour.
_IDLE_SECONDS = 2
_PROBE_SECONDS = 1
_PROBES = 3
_UNHEARD_MILLISECONDS = 5000


def split_hosts(url: str) -> tuple[str, ...]:
    """Return a URL for each of the hosts that a URL names, in its order.

    Args:
        url: `postgres://user@host-1:5432,host-2/database`, or libpq's `?host=a,b&port=1,2`.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return (url,)
    account, at, places = parts.netloc.rpartition("@")
    if "," in places:
        found = [parts._replace(netloc=f"{account}{at}{each}") for each in places.split(",")]
        return tuple(map(urlunsplit, found))
    query = dict(parse_qsl(parts.query))
    hosts = query.get("host", "").split(",")
    if len(hosts) == 1:
        return (url,)
    ports = query.get("port", "").split(",")
    if len(ports) == 1:  # for all of them
        ports *= len(hosts)
    if len(ports) != len(hosts):
        return (url,)  # the driver says what is wrong
    pairs = zip(hosts, ports, strict=True)
    named = [query | {"host": host} | ({"port": port} if port else {}) for host, port in pairs]
    return tuple(urlunsplit(parts._replace(query=urlencode(each))) for each in named)


class WritableHost:
    """Connects to the first of several hosts that takes writes: a pool's `connect`.

    The one that did last is tried first. A host that does not answer in time is passed over.

    Args:
        urls: A URL for each host.
        seconds: How long each may take.
    """

    def __init__(self, urls: Sequence[str], *, seconds: float) -> None:
        self._urls = [*urls]
        self._seconds = seconds
        self._present: str | None = None

    async def __call__(self, _url: str, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
        """Open a connection.

        Raises:
            ConnectionError: No host takes writes; the text has the reason of each.
            asyncpg.PostgresError: A host refuses the account or the database.
        """
        reasons = []
        connect: Any = asyncpg.connect  # whose options the pool passes on, whatever they are
        for url in tuple(self._urls):
            try:
                connection: asyncpg.Connection[asyncpg.Record] = await connect(
                    url, target_session_attrs=_WRITABLE, timeout=self._seconds, **options
                )
            except (OSError, TimeoutError, asyncpg.OperatorInterventionError) as error:
                reasons.append(f"{place(url)}: {error or 'no answer in time'}")
            except asyncpg.TargetServerAttributeNotMatched:
                reasons.append(f"{place(url)}: a standby")
            except asyncpg.InsufficientResourcesError as error:
                reasons.append(f"{place(url)}: {error}")
            else:
                self._choose(url)
                return connection
        raise ConnectionError(
            f"none of its {len(reasons)} hosts takes writes ({'; '.join(reasons)})"
        )

    def _choose(self, url: str) -> None:
        if url == self._present:
            return
        if self._present is not None:
            log.warning("store.host_changed", host=place(url), before=place(self._present))
        self._present = url
        self._urls.remove(url)
        self._urls.insert(0, url)


def place(url: str) -> str:
    """Return host and port of a URL with one host, without its account."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    found = parts.netloc.rpartition("@")[2] or query.get("host", "")
    port = query.get("port") if not parts.netloc.rpartition("@")[2] else None
    return f"{found}:{port}" if port else found


def end_when_unheard(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Have the kernel end a TCP connection within seconds once its peer is silent."""
    # The driver has no option for it, and its stubs do not have the attribute.
    transport: Any = connection._transport  # type: ignore[attr-defined]  # noqa: SLF001
    peer = transport.get_extra_info("socket")
    if peer is None or peer.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = {
        "TCP_KEEPIDLE": _IDLE_SECONDS,
        "TCP_KEEPINTVL": _PROBE_SECONDS,
        "TCP_KEEPCNT": _PROBES,
        "TCP_USER_TIMEOUT": _UNHEARD_MILLISECONDS,
    }
    # A socket of our own on the same connection: those of event loops do not take all options.
    with socket.socket(fileno=os.dup(peer.fileno())) as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options.items():
            number = getattr(socket, name, None)  # macOS has some of them
            if number is not None:
                own.setsockopt(socket.IPPROTO_TCP, number, value)
