"""Connections of triggers: each gets those that are for its DAG."""

from collections.abc import Callable

import anyio
import msgspec
import structlog

from pubsubflow.errors import ConfigError, NotFound, Unavailable
from pubsubflow.model.recent import Recent
from pubsubflow.store.secrets.connections import Connections
from pubsubflow.store.triggers import LeasedTrigger
from pubsubflow.triggerer.protocol import TriggerConnectionReply, TriggerConnectionRequest

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 1.0
_MOST_ENDED = 10_000


class TriggerConnections:
    """Replies to the host's requests for connections.

    Args:
        connections: The stored connections; without them triggers get none.
        lease_of: Returns the lease of a trigger that runs, or is cleaned up, in the host.
        send: Sends a reply to the host.
    """

    def __init__(
        self,
        connections: Connections | None,
        lease_of: Callable[[int], LeasedTrigger | None],
        send: Callable[[TriggerConnectionReply], None],
    ) -> None:
        self._connections = connections
        self._lease_of = lease_of
        self._send = send
        self._ended: Recent[int, str | None] = Recent(_MOST_ENDED)

    def on_committed(self, lease: LeasedTrigger) -> None:
        """Remember the DAG of a trigger that is over: its `acknowledge` is still to run."""
        self._ended.put(lease.number, lease.dag_id)

    async def reply(self, request: TriggerConnectionRequest) -> None:
        """Reply to a trigger's request for a connection, once the store is reached."""
        lease = self._lease_of(request.trigger_id)
        # A trigger of which nothing is known gets what a watch does, which has no DAG either.
        dag_id = self._ended.get(request.trigger_id) if lease is None else lease.dag_id
        reply = TriggerConnectionReply(request.loop, request.request, request.name)
        while self._connections is not None:
            try:
                found = await self._connections.read_for(request.name, dag_id, "a watched dataset")
            except Unavailable as error:
                log.warning("triggerer.store_lost", reason=str(error))
                await anyio.sleep(_RETRY_SECONDS)
                continue
            except (NotFound, ConfigError) as error:
                reply = msgspec.structs.replace(reply, error=str(error))
            else:
                reply = msgspec.structs.replace(reply, connection=found, error=None)
            break
        self._send(reply)
