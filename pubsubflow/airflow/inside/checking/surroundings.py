"""The interpreter that files are checked in: versions, settings, plugins."""

import platform
from importlib.metadata import version
from typing import Any

from airflow import settings
from airflow.configuration import conf

from pubsubflow.airflow.findings import FolderRequest, Surroundings
from pubsubflow.airflow.inside.load import team_folders
from pubsubflow.airflow.inside.loading.notes import NoteBook
from pubsubflow.airflow.inside.loading.owners import Owners
from pubsubflow.airflow.inside.loading.plugins import load_plugins

# What decides the meaning of a file that does not say it.
_SETTINGS = (
    ("core", "dag_ignore_file_syntax"),
    ("core", "dagbag_import_timeout"),
    ("core", "default_timezone"),
    ("scheduler", "catchup_by_default"),
    ("scheduler", "create_cron_data_intervals"),
)


def surroundings_of(request: FolderRequest, files: list[str], seconds: float) -> Surroundings:
    """Return what the interpreter has.

    Args:
        request: Says whether old names are replaced in plugins.
        files: The files that will be checked.
        seconds: How long it took to import Airflow and to find them.
    """
    notes = NoteBook(team_folders(request.root))
    plugins, errors = load_plugins(notes, Owners(request.root), legacy=request.legacy)
    return Surroundings(
        version("apache-airflow-core"),
        platform.python_version(),
        str(settings.AIRFLOW_HOME),
        {f"{part}.{name}": conf.get(part, name, fallback="") for part, name in _SETTINGS},
        dict(errors),
        sorted(str(each.name) for each in plugins if each.listeners and _is_own(each)),
        len(files),
        seconds,
    )


def _is_own(plugin: Any) -> bool:
    """Whether a plugin lies in the plugins folder, rather than in a distribution."""
    return str(plugin.source or "").startswith("$PLUGINS_FOLDER")
