"""DAG versions as they were stored; they never change, so they are kept."""

from collections import OrderedDict
from collections.abc import Iterable

import msgspec

from pubsubflow.model.spec import DagSpec
from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL

_decode = msgspec.msgpack.Decoder(DagSpec).decode


class Specs:
    """Reads versions through a cache that forgets what was used longest ago.

    Args:
        size: Number of versions kept.
    """

    def __init__(self, size: int = 2000) -> None:
        self._size = size
        self._kept: OrderedDict[int, DagSpec] = OrderedDict()

    async def load(
        self, connection: Connection, versions: Iterable[int | None]
    ) -> dict[int, DagSpec]:
        """Return specs by the numbers of their versions; None among these is passed over."""
        wanted = {version for version in versions if version is not None}
        found = {version: self._kept[version] for version in wanted & self._kept.keys()}
        for version in found:
            self._kept.move_to_end(version)
        missing = sorted(wanted - found.keys())
        for row in await connection.fetch(SQL["read_versions"], missing) if missing else ():
            found[row["id"]] = self._kept[row["id"]] = _decode(row["spec"])
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
        return found
