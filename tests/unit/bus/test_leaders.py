"""Leaders of streams: one that its peers do not hear is none."""

import msgspec
import pytest

from pubsubflow.bus.leaders import read_leaders
from pubsubflow.errors import BusUnavailable

pytestmark = pytest.mark.anyio

SECOND = 1_000_000_000


class JetStream:
    """Answers as a server of a cluster does."""

    def __init__(self, cluster: dict):
        self._answer = msgspec.json.encode({"config": {}, "cluster": cluster})

    async def request(self, _subject: str, _payload: bytes, _seconds: float, /) -> bytes:
        return self._answer


def peer(seconds: float, *, offline: bool = False) -> dict:
    return {"name": "n", "current": True, "active": int(seconds * SECOND), "offline": offline}


@pytest.mark.parametrize(
    "peers", [[], [peer(0.2), peer(0.9)], [peer(0.2), peer(60)], [peer(9, offline=True), peer(1)]]
)
async def test_a_leader_that_half_of_its_peers_hear_leads(peers):
    bus = JetStream({"leader": "n1", "replicas": peers})
    assert await read_leaders(bus) == ["n1"] * 4


@pytest.mark.parametrize(
    ("cluster", "reason"),
    [
        ({"replicas": [peer(0.2), peer(0.2)]}, "has no leader"),
        ({"leader": "n1", "replicas": [peer(4), peer(5)]}, "n1, does not hear its peers"),
        ({"leader": "n1", "replicas": [peer(0, offline=True), peer(5)]}, "does not hear"),
    ],
)
async def test_else_nothing_is_stored(cluster, reason):
    with pytest.raises(BusUnavailable, match=reason):
        await read_leaders(JetStream(cluster))
