"""Source locations in user code, and definition errors that name one."""

import contextlib
import inspect
import os
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from pubsubflow.errors import DefinitionError

# Frames in these files are ours: a `with` block adds one of contextlib, imports add frozen ones.
_OWN = (f"{Path(__file__).parent}{os.sep}", contextlib.__file__, "<frozen")
_ATTRIBUTED_TO: ContextVar["SourceLocation | None"] = ContextVar(
    "pubsubflow_attributed_to", default=None
)
_OPEN_DAG: ContextVar[str | None] = ContextVar("pubsubflow_open_dag", default=None)


class SourceLocation(NamedTuple):
    """A line of a file, counted from 1."""

    file: str
    line: int


def caller() -> SourceLocation | None:
    """Return the nearest calling line of user code, or the one that `attributed_to` set."""
    if (location := _ATTRIBUTED_TO.get()) is not None:
        return location
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(_OWN):
        frame = frame.f_back
    return None if frame is None else SourceLocation(frame.f_code.co_filename, frame.f_lineno)


def is_own_file(name: str) -> bool:
    """Return whether a code object's file is one of this package's, rather than of user code."""
    return name.startswith(_OWN)


# A DAG made by a factory in a helper module belongs to the file whose top level runs.
def module_file() -> str | None:
    """Return the file whose top level is being executed, if one is: it owns new definitions."""
    frame = inspect.currentframe()
    while frame is not None and (
        frame.f_code.co_name != "<module>" or frame.f_code.co_filename.startswith(_OWN)
    ):
        frame = frame.f_back
    return None if frame is None else frame.f_code.co_filename


def definition_error(
    message: str,
    *,
    location: SourceLocation | None = None,
    dag_id: str | None = None,
    task_id: str | None = None,
) -> DefinitionError:
    """Return the error for a mistake in a DAG file, to be raised by the caller.

    Args:
        message: The mistake and its remedy.
        location: The line at fault; the calling line when None.
        dag_id: The DAG concerned; the one being defined when None.
        task_id: The task concerned.
    """
    location = location or caller()
    return DefinitionError(
        message,
        file=location.file if location else None,
        line=location.line if location else None,
        dag_id=dag_id or _OPEN_DAG.get(),
        task_id=task_id,
    )


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?`, or the list of known names when none is similar."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names)}"


def set_dag_in_errors(dag_id: str | None) -> None:
    """Name a DAG in the errors raised from now on."""
    _OPEN_DAG.set(dag_id)


@contextlib.contextmanager
def attributed_to(location: SourceLocation | None) -> Iterator[None]:
    """Attribute all definitions inside the block to one line of user code.

    Constructors of subclasses lie in user code too; the line that called them is the better one.
    """
    token = _ATTRIBUTED_TO.set(location)
    try:
        yield
    finally:
        _ATTRIBUTED_TO.reset(token)


@contextlib.contextmanager
def dag_in_errors(dag_id: str | None) -> Iterator[None]:
    """Name a DAG in the errors raised inside the block."""
    token = _OPEN_DAG.set(dag_id)
    try:
        yield
    finally:
        _OPEN_DAG.reset(token)
