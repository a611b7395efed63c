"""The client of the HTTP API reads from a daemon and commands it, also from another machine.

::

    async with Client("http://127.0.0.1:8080") as client:
        run_id = await client.trigger("build_report", params={"day": "2026-11-20"})
        assert (await client.wait(run_id)).state == "success"
        async for event in client.events(dataset="s3://lake/orders", limit=10):
            print(event.time, event.extra)

The command line is built on it.
"""

import ssl
from pathlib import Path
from types import TracebackType
from typing import Self

from pubsubflow.client.alerts import AlertApi
from pubsubflow.client.approvals import ApprovalApi
from pubsubflow.client.auth import TokenApi
from pubsubflow.client.backfills import BackfillApi
from pubsubflow.client.bulk import BulkApi
from pubsubflow.client.calls import CallApi
from pubsubflow.client.checks import CheckApi
from pubsubflow.client.connections import ConnectionApi
from pubsubflow.client.dags import DagApi
from pubsubflow.client.datasets import DatasetApi
from pubsubflow.client.errors import RequestFailed, RequestRefused
from pubsubflow.client.plugins import PluginApi
from pubsubflow.client.pools import PoolApi
from pubsubflow.client.runs import RunApi
from pubsubflow.client.status import ServerApi
from pubsubflow.client.subscriptions import SubscriptionApi
from pubsubflow.client.transport import Transport
from pubsubflow.client.variables import VariableApi
from pubsubflow.client.versions import VersionApi
from pubsubflow.errors import ConfigError

__all__ = ["Client", "RequestFailed", "RequestRefused"]


class Client(
    AlertApi,
    DagApi,
    VersionApi,
    RunApi,
    CallApi,
    BulkApi,
    BackfillApi,
    ApprovalApi,
    DatasetApi,
    CheckApi,
    PoolApi,
    ConnectionApi,
    VariableApi,
    PluginApi,
    ServerApi,
    TokenApi,
    SubscriptionApi,
):
    """A client of one server; an asynchronous context manager.

    Args:
        url: Such as `http://127.0.0.1:8080`.
        token: Bearer token, if the server requires one.
        tls: SSL context for a server with https, in place of `ca`.
        ca: File with the certificate of the authority that signed the server's, PEM; the ones that
            this machine trusts if left out.
        timeout_seconds: How long the server may take to respond.
        retries: Number of further attempts for idempotent requests that the server answers by 429
            or 503, after the pause that it names.
        source: The source of posted events: `api` or `cli`.
        blocking: Whether requests block the thread, as those of commands do: no method suspends
            then, and none needs an event loop.

    Raises:
        ConfigError: The URL, the token or the certificate is invalid.

    All methods raise Unavailable if the server is out of reach or cannot answer now, RequestRefused
    for what it does not know or accept, and RequestFailed for what it could not do.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        ca: str | Path | None = None,
        timeout_seconds: float = 30.0,
        retries: int = 3,
        source: str = "api",
        blocking: bool = False,
    ) -> None:
        self._server = Transport(
            url,
            token=token,
            tls=tls or _context(ca),
            timeout_seconds=timeout_seconds,
            retries=retries,
            source=source,
            blocking=blocking,
        )
        self.url = self._server.url

    async def __aenter__(self) -> Self:
        await self._server.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._server.close()


def _context(ca: str | Path | None) -> ssl.SSLContext | None:
    """Return an SSL context that trusts a private certificate authority.

    Args:
        ca: File with the authority's certificate, PEM; None for those that this machine trusts.

    Raises:
        ConfigError: It cannot be read.
    """
    if ca is None:
        return None
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"the certificate {ca} cannot be used ({reason}): --ca") from error
