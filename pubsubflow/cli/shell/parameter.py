"""Declarations of options: those of cyclopts, unless the process runs a command without a parser.

A plain command line needs none, and to import it takes as long as all the rest of such a command.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from cyclopts import Parameter
    from cyclopts.validators import Number

__all__ = ["Number", "Parameter", "leave_out_parser"]

_T = TypeVar("_T")
_HOMES = {"Parameter": "cyclopts", "Number": "cyclopts.validators"}
_left_out = False


class _Undeclared:
    """Stands for a declaration that nothing reads."""

    def __init__(self, **_options: object) -> None:
        """Take what would be declared."""

    def __call__(self, declared: Callable[..., _T]) -> Callable[..., _T]:
        """Return a class as it is."""
        return declared


def leave_out_parser() -> bool:
    """Have commands that are imported from now on declare nothing; False if it is too late.

    For a process that runs one command and ends.
    """
    global _left_out  # noqa: PLW0603 - of the process
    _left_out = "cyclopts" not in sys.modules
    return _left_out


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _Undeclared if _left_out else getattr(import_module(_HOMES[name]), name)
