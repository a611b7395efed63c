"""The worker: pulls tasks from the bus, runs them in processes, publishes their results."""

from pubsubflow.worker.result_store import ResultStore
from pubsubflow.worker.service import Worker
from pubsubflow.worker.settings import ResultStoreSettings, WorkerSettings

__all__ = ["ResultStore", "ResultStoreSettings", "Worker", "WorkerSettings"]
