"""Specs of DAG versions, read through a cache: a version never changes."""

from collections.abc import Iterable

from pubsubflow.model.recent import Recent
from pubsubflow.model.source.stored_specs import STORED_SPEC
from pubsubflow.model.spec import DagSpec
from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL


class SpecReader:
    """Reads specs and keeps those used last.

    Args:
        size: Number of versions kept.
    """

    def __init__(self, size: int = 2000) -> None:
        self._cache: Recent[int, DagSpec] = Recent(size)

    async def load(
        self, connection: Connection, versions: Iterable[int | None]
    ) -> dict[int, DagSpec]:
        """Return specs by the ids of their versions; None among these is skipped."""
        # Collected apart from the cache, which may drop some of many versions at once.
        found: dict[int, DagSpec] = {}
        missing = []
        for version in sorted({version for version in versions if version is not None}):
            spec = self._cache.get(version)
            if spec is None:
                missing.append(version)
            else:
                found[version] = spec
        for row in await connection.fetch(SQL["read_dag_versions"], missing) if missing else ():
            found[row["id"]] = spec = STORED_SPEC.decode(row["spec"])
            self._cache.put(row["id"], spec)
        return found
