"""Retention: what is old is archived and removed, without holding up what goes on."""

from typing import TYPE_CHECKING

from pubsubflow.model.lazy_import import lazy_names

if TYPE_CHECKING:
    from pubsubflow.retention.archive import Archive
    from pubsubflow.retention.log_mover import LogMover
    from pubsubflow.retention.pruner import Pruner
    from pubsubflow.retention.service import RetentionService, summed
    from pubsubflow.retention.settings import LogStoreSettings, RetentionSettings

__all__ = [
    "Archive",
    "LogMover",
    "LogStoreSettings",
    "Pruner",
    "RetentionService",
    "RetentionSettings",
    "summed",
]

__getattr__ = lazy_names(
    __name__,
    {
        "archive": ("Archive",),
        "log_mover": ("LogMover",),
        "pruner": ("Pruner",),
        "service": ("RetentionService", "summed"),
        "settings": ("LogStoreSettings", "RetentionSettings"),
    },
)
