"""Elsewhere: another server of the cluster is connected to if it alone knows leaders.

A server that the network has cut off from its peers keeps its clients, and answers none of them.
During an election no server knows a leader: then it is right to stay.
"""

import anyio
import msgspec
import structlog

from pubsubflow.bus.connection import Bus
from pubsubflow.bus.leaders import read_leaders
from pubsubflow.bus.settings import BusSettings, without_credentials
from pubsubflow.errors import PubsubflowError

log = structlog.get_logger(__name__)

_CONNECT_SECONDS = 1.0
_LOOK_SECONDS = 4.0
_ANSWER_SECONDS = 1.0


async def go_elsewhere(bus: Bus) -> bool:
    """Connect to another server that knows other leaders; return whether there is one."""
    if not (bus.client.is_clustered and bus.connected):
        return False
    for url in bus.client.other_servers:
        leaders = await _leaders_there(bus.settings, url)
        if leaders is not None:
            # An election that has just ended is known here as well.
            if await _leaders_of(bus) == leaders:
                return False
            log.warning("bus.server_left", other=without_credentials(url))
            await bus.client.move_to(url)
            return True
    return False


async def _leaders_there(settings: BusSettings, url: str) -> list[str] | None:
    there = msgspec.structs.replace(settings, url=url, connect_seconds=_CONNECT_SECONDS)
    try:
        with anyio.fail_after(_LOOK_SECONDS):
            async with Bus.connect(there) as other:
                return await _leaders_of(other)
    except (PubsubflowError, TimeoutError):
        return None


async def _leaders_of(bus: Bus) -> list[str] | None:
    try:
        return await read_leaders(bus, _ANSWER_SECONDS)
    except PubsubflowError:
        return None
