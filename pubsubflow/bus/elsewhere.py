"""Elsewhere: another server of the cluster is connected to if it alone knows leaders.

A server that the network has cut off from its peers keeps its clients, and answers none of them.
During an election no server knows a leader: then it is right to stay.
"""

import anyio
import msgspec
import structlog

from pubsubflow.bus.connection import Bus
from pubsubflow.bus.settings import BusSettings, without_credentials
from pubsubflow.errors import PubsubflowError

log = structlog.get_logger(__name__)

_CONNECT_SECONDS = 1.0
_LOOK_SECONDS = 4.0


async def go_elsewhere(bus: Bus) -> bool:
    """Connect to another server on which all streams have leaders; return whether there is one."""
    if not (bus.client.is_clustered and bus.connected):
        return False
    for url in bus.client.other_servers:
        if await _has_leaders(bus.settings, url):
            # An election that has just ended is known here as well.
            if await _knows_leaders(bus):
                return False
            log.warning("bus.server_left", other=without_credentials(url))
            await bus.client.move_to(url)
            return True
    return False


async def _has_leaders(settings: BusSettings, url: str) -> bool:
    there = msgspec.structs.replace(settings, url=url, connect_seconds=_CONNECT_SECONDS)
    try:
        with anyio.fail_after(_LOOK_SECONDS):
            async with Bus.connect(there) as other:
                return await _knows_leaders(other)
    except (PubsubflowError, TimeoutError):
        return False


async def _knows_leaders(bus: Bus) -> bool:
    try:
        await bus.stream_set.restore()
    except PubsubflowError:
        return False
    return True
