"""The team's plugins, loaded as DAG files are: their old imports are replaced."""

import importlib.machinery
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from airflow import plugins_manager

from pubsubflow.airflow.inside.loading.notes import NoteBook
from pubsubflow.airflow.inside.loading.owners import Owners
from pubsubflow.airflow.inside.loading.sources import TeamLoader


def load_plugins(
    notes: NoteBook, owners: Owners, *, legacy: bool
) -> tuple[list[Any], dict[str, str]]:
    """Load all plugins, once a process; return them, and the errors of those that fail by file.

    Args:
        notes: Says which files are the team's, and gets a note for each old use.
        owners: Gets the DAGs that modules make.
        legacy: Whether old names are replaced.
    """
    with _files_rewritten(notes, owners, legacy=legacy):
        plugins_manager.ensure_plugins_loaded()
        plugins, errors = plugins_manager._get_plugins()  # noqa: SLF001 - there is no public reader
    return plugins, dict(errors)


@contextmanager
def _files_rewritten(notes: NoteBook, owners: Owners, *, legacy: bool) -> Iterator[None]:
    """Replace the loader of files, by which Airflow imports each file of its plugins folder."""
    plain = importlib.machinery.SourceFileLoader

    def loader(name: str, path: str) -> Any:
        made = plain(name, path)
        own = notes.is_own(path)
        return TeamLoader(made, path, notes, owners, legacy=legacy) if own else made

    importlib.machinery.SourceFileLoader = loader  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        importlib.machinery.SourceFileLoader = plain  # type: ignore[misc]
