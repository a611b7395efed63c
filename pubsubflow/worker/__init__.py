"""The worker: pulls tasks from the bus, runs them in processes, publishes their results."""

from pubsubflow.worker.service import Worker
from pubsubflow.worker.settings import WorkerSettings

__all__ = ["Worker", "WorkerSettings"]
