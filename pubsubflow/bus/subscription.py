"""A subscription to plain messages."""

from types import TracebackType
from typing import Self

from pubsubflow.bus.client import NatsClient


class Subscription:
    """A plain NATS subscription; as a context manager it ends with the block."""

    def __init__(self, client: NatsClient, handle: int) -> None:
        self._client = client
        self._handle = handle

    def unsubscribe(self) -> None:
        """Unsubscribe; messages on their way are dropped."""
        self._client.close_subscription(self._handle)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.unsubscribe()
