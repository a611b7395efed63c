"""The loader: turns a folder of DAG files into versions of DAGs.

User code runs in child processes only.
"""

from typing import TYPE_CHECKING

from pubsubflow.model.lazy_import import lazy_names

if TYPE_CHECKING:
    from pubsubflow.loader.dag_store import DagStore
    from pubsubflow.loader.once import load_once
    from pubsubflow.loader.service import Loader
    from pubsubflow.loader.settings import PRELOAD, LoaderSettings

__all__ = ["PRELOAD", "DagStore", "Loader", "LoaderSettings", "load_once"]

__getattr__ = lazy_names(
    __name__,
    {
        "dag_store": ("DagStore",),
        "once": ("load_once",),
        "service": ("Loader",),
        "settings": ("PRELOAD", "LoaderSettings"),
    },
)
