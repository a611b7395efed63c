"""The worker: pulls tasks from the bus, runs them in processes, publishes their results."""

from typing import TYPE_CHECKING

from pubsubflow.model.lazy_import import lazy_names

if TYPE_CHECKING:
    from pubsubflow.worker.result_store import ResultStore
    from pubsubflow.worker.service import Worker
    from pubsubflow.worker.settings import ResultStoreSettings, WorkerSettings

__all__ = ["ResultStore", "ResultStoreSettings", "Worker", "WorkerSettings"]

__getattr__ = lazy_names(
    __name__,
    {
        "result_store": ("ResultStore",),
        "service": ("Worker",),
        "settings": ("ResultStoreSettings", "WorkerSettings"),
    },
)
