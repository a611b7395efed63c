"""Takes tasks from the bus, has processes run them, tells how they ended."""

from pubsubflow.worker.service import Worker
from pubsubflow.worker.settings import WorkerSettings

__all__ = ["Worker", "WorkerSettings"]
