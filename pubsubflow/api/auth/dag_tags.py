"""The tags of all DAGs, kept in memory for those whose grants are on tags."""

import structlog

from pubsubflow.errors import Unavailable
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.read.dags import ReadDags
from pubsubflow.wakeup import Wakeups

log = structlog.get_logger(__name__)

_SWEEP_SECONDS = 5.0


class DagTags:
    """The DAGs and their tags; nothing is read before the first request of a principal with grants.

    Args:
        dags: Reads them.
        wakeups: Notify when DAGs have changed.
    """

    def __init__(self, dags: ReadDags, wakeups: Wakeups) -> None:
        self._dags = dags
        self._wakeups = wakeups
        self._known: dict[str, tuple[int, tuple[str, ...]]] | None = None

    async def load(self) -> None:
        """Read them.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        self._known = await self._dags.tags(self._known or {})

    async def ready(self, dag_id: str | None) -> None:
        """Read them if they were never read, or if a DAG is not among them.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        if self._known is None or (dag_id is not None and dag_id not in self._known):
            await self.load()

    def of(self, dag_id: str) -> tuple[str, ...]:
        """Return the tags of a DAG; none of one that is not known."""
        return (self._known or {}).get(dag_id, (0, ()))[1]

    def names(self) -> list[str]:
        """Return the ids of all DAGs."""
        return list(self._known or ())

    async def run(self) -> None:
        """Keep them up to date until cancelled."""
        await self._wakeups.refresh(
            self._reload, Subjects.DAGS_CHANGED, sweep_seconds=_SWEEP_SECONDS
        )

    async def _reload(self) -> None:
        # Where nobody has grants, these are never read.
        if self._known is None:
            return
        try:
            await self.load()
        except Unavailable as error:
            log.debug("dag_tags.load_failed", reason=str(error))
