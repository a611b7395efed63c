"""Dask trigger: waits for a future of a scheduler."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
from distributed import Client, Future

from pubsubflow.errors import TriggerError
from pubsubflow.model.triggers import Trigger, TriggerContext, TriggerEvent
from pubsubflow_triggers.backoff import Backoff
from pubsubflow_triggers.checks import check_filled, check_url
from pubsubflow_triggers.credentials import resolve_url

_SCHEMES = ("tcp", "tls", "ucx", "ws", "wss")
_CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 5.0
_SILENCE_SECONDS = 30.0


class DaskFuture(Trigger, frozen=True, kw_only=True):
    """Fires when a future of a Dask scheduler is finished; at once if it is.

    A scheduler forgets a future without a holder: publish it (`client.publish_dataset`) or keep
    its client. While it waits, the trigger holds the future, too; the result stays on the cluster.

    Attributes:
        scheduler: `tcp://host:8786` or `tls://…`, as configured for Dask; `env:NAME` or
            `connection:NAME`.
        key: The future's key.

    The payload is `{"key", "status"}`.
    """

    scheduler: str
    key: str

    def __post_init__(self) -> None:
        """Raise DefinitionError for an invalid address or key."""
        check_url("DaskFuture", self.scheduler, _SCHEMES, field="scheduler")
        check_filled("DaskFuture", "key", self.key)

    def share_key(self) -> str:
        """Wait with one client for all."""
        return msgspec.json.encode(self).decode()

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Hold the future until it is finished.

        Raises:
            TriggerError: It failed, or the scheduler has forgotten it.
        """
        backoff = Backoff(ctx, "dask")
        while True:
            try:
                async with _connected(await resolve_url(ctx, self.scheduler)) as client:
                    ctx.log("dask.waiting", key=self.key)
                    await self._finished(client)
                break
            except OSError as error:
                await backoff.failed(error)
        yield TriggerEvent(payload={"key": self.key, "status": "finished"}, id=self.key)

    async def _finished(self, client: Client) -> None:
        future: Future[Any] = Future(self.key, client)
        client._inform_scheduler_of_futures()  # noqa: SLF001 - there is no public way to hold a key
        while not future.done():
            scheduler: Any = client.scheduler
            states = await scheduler.get_task_status(keys=[self.key])
            if states[self.key] is None:
                raise TriggerError(
                    f"the Dask scheduler has no future {self.key!r}: publish it, or "
                    "keep the client that made it"
                )
            with anyio.move_on_after(_SILENCE_SECONDS):
                await future.exception()
        if future.status == "error":
            error = await future.exception()
            raise TriggerError(
                f"Dask future {self.key!r} failed: {type(error).__name__}: {error}"
            ) from error
        # Cancelled, or the scheduler was lost: connect again.
        if future.status != "finished":
            raise ConnectionResetError(f"the future is {future.status}")


@asynccontextmanager
async def _connected(address: str) -> AsyncIterator[Client]:
    client = Client(
        address,
        asynchronous=True,
        set_as_default=False,
        timeout=_CONNECT_SECONDS,
        name="pubsubflow-triggers",
    )
    try:
        await client
        yield client
    finally:
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            await client.close()
