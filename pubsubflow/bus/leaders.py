"""Leaders of the streams of a cluster: who they are, and whether they can store anything.

A leader that the network has cut off from its peers does not know for ten seconds: it answers as
before, and stores nothing. That its peers are silent says so earlier.
"""

import msgspec

from pubsubflow.bus import streams
from pubsubflow.errors import BusUnavailable

SILENT_SECONDS = 3.5
"""Peers answer their leader once a second."""
_NANOSECONDS = 1_000_000_000


class _Peer(msgspec.Struct):
    active: int = 0
    offline: bool = False

    @property
    def heard(self) -> bool:
        return not self.offline and self.active < SILENT_SECONDS * _NANOSECONDS


class _Cluster(msgspec.Struct):
    leader: str = ""
    replicas: list[_Peer] = msgspec.field(default_factory=list)

    @property
    def has_quorum(self) -> bool:
        # The leader itself is not among them: with it, half of them are a majority.
        return 2 * sum(peer.heard for peer in self.replicas) >= len(self.replicas)


class _Info(streams.ApiResponse):
    cluster: _Cluster = msgspec.field(default_factory=_Cluster)


async def read_leaders(bus: streams.Requester, seconds: float = 2.0) -> list[str]:
    """Return the names of the servers that lead the streams, as one server of a cluster knows them.

    Args:
        bus: The connection to it.
        seconds: Time limit of each question.

    Raises:
        BusUnavailable: A stream has no leader, or one that its peers do not hear.
    """
    leaders = []
    for stream in (*streams.STREAMS, streams.STREAM_STATE):
        try:
            info = await streams.call_api(bus, f"STREAM.INFO.{stream}", None, _Info, seconds)
        except streams.ApiError as error:
            raise BusUnavailable(f"JetStream does not know stream {stream}: {error}") from error
        if not info.cluster.leader:
            raise BusUnavailable(f"stream {stream} has no leader")
        if not info.cluster.has_quorum:
            raise BusUnavailable(
                f"the leader of stream {stream}, {info.cluster.leader}, does not hear its peers"
            )
        leaders.append(info.cluster.leader)
    return leaders
