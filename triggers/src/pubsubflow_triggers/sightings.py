"""Sightings of files and objects: which are settled, which are new, which were reported."""

from datetime import datetime, timedelta
from hashlib import blake2b
from heapq import nlargest
from typing import Any

from msgspec import Struct

from pubsubflow.model.triggers import TriggerEvent

_LONGEST = 256
"""Largest number of identities in a position: the latest ones. When more than that appear in one
tick of the store's clock, a restart may report some again, under the same identity."""


class Sighting(Struct, frozen=True):
    """A file or an object at one moment.

    Attributes:
        id: Identity of its content: another one for another content.
        stamp: The store's time of its appearance or change, seconds since 1970.
        size: Bytes.
        payload: The event's payload.
    """

    id: str
    stamp: float
    size: int
    payload: dict[str, Any]


class Sightings:
    """Finds new sightings in each scan and reports each once, also after a restart.

    In memory it holds the reported sightings that still exist. The position holds a stamp and the
    identities that were reported from then on: all older ones have been reported.

    Args:
        position: The last stored position, or None.
        stable: How long a file must be unchanged before it is reported.
        margin: How much later than its stamp a file may be seen first.
        min_bytes: Smaller files are not reported.
    """

    def __init__(
        self, position: Any, *, stable: timedelta, margin: timedelta, min_bytes: int = 0
    ) -> None:
        self._stable = stable
        self._margin = margin.total_seconds()
        self._min_bytes = min_bytes
        self._since = float("-inf") if position is None else float(position["since"])
        self._known: frozenset[str] = frozenset(() if position is None else position["reported"])
        self._reported: dict[str, float] = {}
        self._first_seen: dict[str, datetime] = {}
        self._first = True

    def update(self, found: list[Sighting], now: datetime) -> list[Sighting]:
        """Take the result of a scan, and return the sightings to report, oldest first."""
        here = {_digest(each.id): each.stamp for each in found}
        if self._first:
            self._first = False
            self._reported = {
                digest: stamp
                for digest, stamp in here.items()
                if stamp < self._since or digest in self._known
            }
        else:
            self._reported = {
                digest: stamp for digest, stamp in self._reported.items() if digest in here
            }
        new = [
            each
            for each in found
            if each.size >= self._min_bytes and _digest(each.id) not in self._reported
        ]
        self._first_seen = {each.id: self._first_seen.get(each.id, now) for each in new}
        settled = [each for each in new if self._first_seen[each.id] + self._stable <= now]
        return sorted(settled, key=lambda each: (each.stamp, each.id))

    def settles_at(self) -> datetime | None:
        """Return when the next sighting has been unchanged for long enough; None without one."""
        first = min(self._first_seen.values(), default=None)
        return None if first is None else first + self._stable

    def report(self, sighting: Sighting) -> TriggerEvent:
        """Return the event of a sighting, which is not reported again."""
        self._first_seen.pop(sighting.id, None)
        self._reported[_digest(sighting.id)] = sighting.stamp
        self._since = max(self._since, sighting.stamp - self._margin)
        recent = [digest for digest, stamp in self._reported.items() if stamp >= self._since]
        if len(recent) > _LONGEST:
            recent = nlargest(_LONGEST, recent, key=self._reported.__getitem__)
            self._since = self._reported[recent[-1]]
        position = {"since": self._since, "reported": recent}
        return TriggerEvent(payload=sighting.payload, id=sighting.id, position=position)


def _digest(identity: str) -> str:
    return blake2b(identity.encode(), digest_size=8).hexdigest()
