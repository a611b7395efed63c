"""The loader: turns a folder of DAG files into versions of DAGs.

User code runs in child processes only.
"""

from pubsubflow.loader.importer import LoaderSettings
from pubsubflow.loader.service import PRELOAD, DagStore, Loader, load_once

__all__ = ["PRELOAD", "DagStore", "Loader", "LoaderSettings", "load_once"]
