"""Retention: what is old is archived and removed, without holding up what goes on."""

from pubsubflow.retention.archive import Archive
from pubsubflow.retention.log_mover import LogMover, LogStoreSettings
from pubsubflow.retention.pruner import Pruner
from pubsubflow.retention.service import RetentionService, summed
from pubsubflow.retention.settings import RetentionSettings

__all__ = [
    "Archive",
    "LogMover",
    "LogStoreSettings",
    "Pruner",
    "RetentionService",
    "RetentionSettings",
    "summed",
]
