"""All routes that change versions of DAGs."""

from collections.abc import Callable, Iterable
from datetime import datetime

from pubsubflow.api.http.routing import Route
from pubsubflow.api.routes.versions.deletion import DeletionRoutes
from pubsubflow.api.routes.versions.promotion import PromotionRoutes
from pubsubflow.bus import Bus
from pubsubflow.model.wire.commands import CommandHandler
from pubsubflow.store.database import Database
from pubsubflow.store.read.read_models import ReadModels
from pubsubflow.store.versions.deletion import DagDeletions
from pubsubflow.store.versions.promotion import Promotions


class VersionChangeRoutes:
    """Promotion, rollback and deletion of DAGs.

    Args:
        database: Postgres.
        commands: Cancels runs.
        read_models: Reads what is shown.
        bus: Announces changes.
        now: The time.
    """

    def __init__(
        self,
        database: Database,
        commands: CommandHandler,
        read_models: ReadModels,
        bus: Bus,
        now: Callable[[], datetime],
    ) -> None:
        self._parts = (
            PromotionRoutes(Promotions(database, now), read_models, bus),
            DeletionRoutes(DagDeletions(database, now), commands, bus),
        )

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        for part in self._parts:
            yield from part.routes()
