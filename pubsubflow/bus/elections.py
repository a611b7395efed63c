"""Elections: JetStream announces each new leader, so that what waits for one goes on at once.

With a leader its pull requests are lost, and messages that it has not acknowledged may be.
Nothing but silence says so, and silence takes seconds to be sure of.
"""

import asyncio
from collections.abc import Callable
from functools import partial

from pubsubflow.bus.client import NatsClient

_STREAMS = "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED."
_CONSUMERS = "$JS.EVENT.ADVISORY.CONSUMER.LEADER_ELECTED."
_STREAMS_CUT, _CONSUMERS_CUT = len(_STREAMS), len(_CONSUMERS)
_SETTLE_SECONDS = 0.1
"""A leader announces itself before it listens, and before its peers know where it listens."""


class Elections:
    """Calls who waits for the leader of a stream or a consumer when there is a new one.

    Args:
        client: The connection.
        on_stream: Called with the name of a stream that has a new leader.
    """

    def __init__(self, client: NatsClient, on_stream: Callable[[str], None]) -> None:
        self._client = client
        self._on_stream = on_stream
        self._listeners: dict[str, list[Callable[[], None]]] = {}

    def open(self) -> None:
        """Subscribe; the subscriptions outlive reconnects."""
        # A client without the permission gets an error of the server, which is logged, and waits
        # for time limits as it would on one server.
        self._client.open_subscription(f"{_STREAMS}*", self._on_stream_elected)
        self._client.open_subscription(f"{_CONSUMERS}*.*", self._on_consumer_elected)

    def on_consumer(
        self, stream: str, durable: str, listener: Callable[[], None]
    ) -> Callable[[], None]:
        """Call `listener` for each new leader of a consumer; return what stops this."""
        listeners = self._listeners.setdefault(f"{stream}.{durable}", [])
        listeners.append(listener)
        return partial(listeners.remove, listener)

    def _on_stream_elected(self, subject: bytes, reply: bytes, data: bytes, header: bytes) -> None:
        del reply, data, header
        _later(partial(self._on_stream, subject[_STREAMS_CUT:].decode()))

    def _on_consumer_elected(
        self, subject: bytes, reply: bytes, data: bytes, header: bytes
    ) -> None:
        del reply, data, header
        for listener in self._listeners.get(subject[_CONSUMERS_CUT:].decode(), ()):
            _later(listener)


def _later(call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(_SETTLE_SECONDS, call)
