"""From a folder of DAG files to versions of DAGs; user code runs in child processes only."""

from pubsubflow.loader.importer import LoaderSettings
from pubsubflow.loader.service import PRELOAD, Loader, load_once
from pubsubflow.loader.sink import VersionSink

__all__ = ["PRELOAD", "Loader", "LoaderSettings", "VersionSink", "load_once"]
