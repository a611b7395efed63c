"""What has been seen of files and objects: what is settled, what is new, what was told."""

from datetime import datetime, timedelta
from hashlib import blake2b
from heapq import nlargest
from typing import Any

from msgspec import Struct

from pubsubflow.model.triggers import TriggerEvent

_LONGEST = 256
"""So many identities a position holds at most: the latest. When more than that come in one tick of
the store's clock, a restart may tell some again, under the same identity."""


class Sighting(Struct, frozen=True):
    """A file or an object at one moment.

    Attributes:
        id: Identity of its content: another one for another content.
        stamp: When its store says that it came or changed, seconds since 1970.
        size: Bytes.
        payload: What the event carries.
    """

    id: str
    stamp: float
    size: int
    payload: dict[str, Any]


class Sightings:
    """Tells what is new each time that somebody has looked; everything once, also after a restart.

    In memory it knows all that it told and that is still there. The position holds a stamp and
    the identities that were told from then on: older ones have been told.

    Args:
        position: The last one that was kept, or None.
        stable: How long something must look the same before it is told.
        margin: How much later than its stamp something may be seen first.
        min_bytes: What is smaller is not told.
    """

    def __init__(
        self, position: Any, *, stable: timedelta, margin: timedelta, min_bytes: int = 0
    ) -> None:
        self._stable = stable
        self._margin = margin.total_seconds()
        self._min_bytes = min_bytes
        self._since = float("-inf") if position is None else float(position["since"])
        self._known: frozenset[str] = frozenset(() if position is None else position["told"])
        self._told: dict[str, float] = {}
        self._first_seen: dict[str, datetime] = {}
        self._first = True

    def look(self, found: list[Sighting], now: datetime) -> list[Sighting]:
        """Take what is there now, and return what is to be told, oldest first."""
        here = {_digest(each.id): each.stamp for each in found}
        if self._first:
            self._first = False
            self._told = {
                digest: stamp
                for digest, stamp in here.items()
                if stamp < self._since or digest in self._known
            }
        else:
            self._told = {digest: stamp for digest, stamp in self._told.items() if digest in here}
        news = [
            each
            for each in found
            if each.size >= self._min_bytes and _digest(each.id) not in self._told
        ]
        self._first_seen = {each.id: self._first_seen.get(each.id, now) for each in news}
        settled = [each for each in news if self._first_seen[each.id] + self._stable <= now]
        return sorted(settled, key=lambda each: (each.stamp, each.id))

    def settles_at(self) -> datetime | None:
        """Return when the next one has looked the same for long enough; None without any."""
        first = min(self._first_seen.values(), default=None)
        return None if first is None else first + self._stable

    def tell(self, sighting: Sighting) -> TriggerEvent:
        """Return the event for one; it is not told again."""
        self._first_seen.pop(sighting.id, None)
        self._told[_digest(sighting.id)] = sighting.stamp
        self._since = max(self._since, sighting.stamp - self._margin)
        recent = [digest for digest, stamp in self._told.items() if stamp >= self._since]
        if len(recent) > _LONGEST:
            recent = nlargest(_LONGEST, recent, key=self._told.__getitem__)
            self._since = self._told[recent[-1]]
        position = {"since": self._since, "told": recent}
        return TriggerEvent(payload=sighting.payload, id=sighting.id, position=position)


def _digest(identity: str) -> str:
    return blake2b(identity.encode(), digest_size=8).hexdigest()
