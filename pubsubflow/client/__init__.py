"""Ask a daemon over HTTP, from here or from another machine.

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

from pubsubflow.client.auth import AccessCalls
from pubsubflow.client.connections import ConnectionCalls
from pubsubflow.client.dags import DagCalls
from pubsubflow.client.datasets import DatasetCalls
from pubsubflow.client.errors import Failed, Refused
from pubsubflow.client.pools import PoolCalls
from pubsubflow.client.runs import RunCalls
from pubsubflow.client.status import ServerCalls
from pubsubflow.client.subscriptions import SubscriptionCalls
from pubsubflow.client.transport import Transport
from pubsubflow.errors import ConfigError

__all__ = ["Client", "Failed", "Refused"]


class Client(
    DagCalls,
    RunCalls,
    DatasetCalls,
    PoolCalls,
    ConnectionCalls,
    ServerCalls,
    AccessCalls,
    SubscriptionCalls,
):
    """Connections to one server; an asynchronous context manager.

    Args:
        url: Such as `http://127.0.0.1:8080`.
        token: Bearer token, if the server wants one.
        tls: How to check a server that answers by https, in place of `ca`.
        ca: File with the certificate of the authority that signs the server's, PEM; one that this
            machine trusts if left out.
        timeout_seconds: How long the server may take to answer.
        retries: How many more times to ask what may be asked twice, when the server answers that
            it cannot now (429, 503); it says itself when.
        source: What posted events have as their source: `api` or `cli`.

    Raises:
        ConfigError: The URL, the token or the certificate is none.

    All methods raise Unavailable when the server is out of reach or cannot answer now, Refused for
    what it does not know or accept, and Failed for what it could not do.
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
    ) -> None:
        self._server = Transport(
            url,
            token=token,
            tls=tls or _context(ca),
            timeout_seconds=timeout_seconds,
            retries=retries,
            source=source,
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
    """Return how to check servers whose certificates an authority of one's own has signed.

    Args:
        ca: File with the authority's certificate, PEM; None for those that the machine trusts.

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
