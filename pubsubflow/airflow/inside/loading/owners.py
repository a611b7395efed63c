"""Owners of DAGs: a file that imports another DAG file has no part in the DAGs of that one."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from types import ModuleType
from typing import Any

from airflow.sdk import DAG
from airflow.sdk.definitions._internal.contextmanager import DagContext

from pubsubflow.airflow.inside.files import find_files


class Owners:
    """Which modules of the team have made which DAGs, while one file is imported.

    Airflow counts a DAG to the file that is loaded, also where another DAG file made it on the way:
    both files have it there, and it is said to be of the one that was parsed last.

    Args:
        root: The folder of all files.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        # With the DAG itself: the number of one that is gone may be given anew.
        self._found: dict[int, tuple[Any, str]] = {}

    @contextmanager
    def importing(self, module: ModuleType) -> Iterator[None]:
        """Count what a module makes during the block to that module.

        What it makes later, as a function that another one calls, is of that one.
        """
        name, around = module.__name__, DagContext.current_autoregister_module_name
        if around is None or sys.modules.get(name) is not module:
            yield
            return
        DagContext.current_autoregister_module_name = name
        try:
            yield
        finally:
            DagContext.current_autoregister_module_name = around
        registered = [dag for dag, by in DagContext.autoregistered_dags if by is module]
        # Those that are no context of anything are not registered.
        for value in (*registered, *vars(module).values()):
            if isinstance(value, DAG):
                # Its maker's import ends before that of all that have it from there.
                self._found.setdefault(id(value), (value, str(module.__file__)))

    def is_foreign(self, dag: Any, module: ModuleType, path: str) -> bool:
        """Return whether a DAG is one of another DAG file, which is loaded for itself.

        Args:
            dag: The DAG.
            module: The module that it is registered by, or that has it.
            path: The file that is loaded.
        """
        _, file = self._found.get(id(dag), (dag, str(module.__file__)))
        # Those of an archive are below it.
        return file != path and not file.startswith(f"{path}/") and file in self._dag_files

    @cached_property
    def _dag_files(self) -> frozenset[str]:
        return frozenset(find_files(self._root))
