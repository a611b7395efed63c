"""The stream set creates and restores the streams with as many replicas as the servers allow."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

import structlog
from msgspec import Struct

from pubsubflow.bus import streams

log = structlog.get_logger(__name__)

Attempt: TypeAlias = Callable[[], Awaitable[object]]

CLUSTER_REPLICAS = 3
"""On a cluster, unless the settings say otherwise: one server may die."""


class StreamSet(Struct, frozen=True):
    """The streams of a NATS server or cluster.

    Attributes:
        bus: Sends requests.
        replicas: Number of servers that keep each stream; None for as many as make sense.
        clustered: Whether the server is one of a cluster.
    """

    bus: streams.Requester
    replicas: int | None
    clustered: bool

    async def ensure(
        self, retry: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
    ) -> None:
        """Create the streams, or update their configurations.

        Args:
            retry: Calls a function until JetStream is ready.

        Raises:
            BusUnavailable: JetStream is not ready.
            ConfigError: The server has no JetStream, or refuses a stream.
        """
        found: list[int] = []

        async def ensure(config: streams.Config) -> None:
            found.append(await streams.ensure_stream(self.bus, config, flexible=self._flexible))

        for config in self._configs():
            await retry(partial(ensure, config))
        self._log_replicas(min(found))

    async def restore(self, turn: int | None = None) -> None:
        """Create streams that are missing, and add replicas that they could not have before.

        Args:
            turn: Look at one stream alone, another one at each turn; at all if left out.

        Raises:
            BusUnavailable: JetStream does not answer, or a stream has no leader.
            ConfigError: JetStream refuses a stream.
        """
        configs = self._configs()
        for config in configs if turn is None else [configs[turn % len(configs)]]:
            await streams.restore_stream(self.bus, config, flexible=self._flexible)

    @property
    def _flexible(self) -> bool:
        return self.replicas is None

    def _configs(self) -> list[streams.Config]:
        most = CLUSTER_REPLICAS if self.clustered else 1
        return streams.stream_configs(self.replicas or most)

    def _log_replicas(self, replicas: int) -> None:
        if not self.clustered:
            return
        if replicas > 1:
            log.info("bus.streams_replicated", replicas=replicas)
            return
        log.warning(
            "bus.streams_unreplicated",
            advice="what is in them is lost with the one server that keeps it: set nats.replicas "
            "to 3, or start more servers of the cluster",
        )
