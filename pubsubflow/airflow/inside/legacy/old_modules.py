"""Old modules as objects, for files that import a module and use names of it."""

import importlib
import types
from typing import Any, NoReturn

from pubsubflow.airflow.inside.legacy.table import find_row

_DOT = "__"


class RemovedName(ImportError):  # noqa: N818 - as the errors of the project are named
    """A name of an older Airflow that has no successor; it says what to write.

    Args:
        name: The old name with its module.
        remedy: What to write instead.
    """

    def __init__(self, name: str, remedy: str) -> None:
        super().__init__(f"{name} is not in Airflow 3: {remedy}")
        self.remedy = remedy


class _OldModule(types.ModuleType):
    """Gives the names that a module of an older Airflow had."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith(_DOT):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return find_object(self.__name__, name)


def __getattr__(name: str) -> _OldModule:
    """Return an old module; its name is written with `__` for each dot."""
    if name.startswith(_DOT):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _OldModule(name.replace(_DOT, "."))


def written(module: str) -> str:
    """Return an old module's name as this module has it."""
    return module.replace(".", _DOT)


def find_object(module: str, name: str) -> Any:
    """Return what an old name stands for.

    Raises:
        AttributeError: The old module had no such name, or it is unknown where it went.
        RemovedName: It has no successor.
        ImportError: The distribution with its successor is not installed.
    """
    row = find_row(module, name)
    if row is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    if row.remedy:
        refuse(module, name)
    return getattr(importlib.import_module(row.new_module), row.new_name)


def refuse(module: str, name: str) -> NoReturn:
    """Raise the error of a name without a successor.

    Raises:
        RemovedName: Always.
    """
    row = find_row(module, name)
    raise RemovedName(f"{module}.{name}", row.remedy if row else "it was removed")
