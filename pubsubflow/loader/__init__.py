"""The loader: turns a folder of DAG files into versions of DAGs.

User code runs in child processes only.
"""

from pubsubflow.loader.service import PRELOAD, DagStore, Loader, load_once
from pubsubflow.loader.settings import LoaderSettings

__all__ = ["PRELOAD", "DagStore", "Loader", "LoaderSettings", "load_once"]
