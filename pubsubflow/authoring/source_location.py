"""Where in the user's files something was said, and the error that names that place."""

import contextlib
import inspect
import os
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from pubsubflow.errors import DefinitionError

_OWN = (f"{Path(__file__).parent}{os.sep}", contextlib.__file__, "<frozen")
_SPEAKER: ContextVar["Place | None"] = ContextVar("pubsubflow_speaker", default=None)
_OPEN_DAG: ContextVar[str | None] = ContextVar("pubsubflow_open_dag", default=None)


class Place(NamedTuple):
    """A line of a file, counted from 1."""

    file: str
    line: int


def caller() -> Place | None:
    """Return the nearest calling line that is not ours, or the one that `speaking_from` set."""
    if (place := _SPEAKER.get()) is not None:
        return place
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(_OWN):
        frame = frame.f_back
    return None if frame is None else Place(frame.f_code.co_filename, frame.f_lineno)


def module_file() -> str | None:
    """Return the file whose top level is being executed, if one is: it defines what is made."""
    frame = inspect.currentframe()
    while frame is not None and (
        frame.f_code.co_name != "<module>" or frame.f_code.co_filename.startswith(_OWN)
    ):
        frame = frame.f_back
    return None if frame is None else frame.f_code.co_filename


def mistake(
    message: str,
    *,
    place: Place | None = None,
    dag_id: str | None = None,
    task_id: str | None = None,
) -> DefinitionError:
    """Return the error for a mistake in a DAG file, to be raised by the caller.

    Args:
        message: What is wrong and how to mend it.
        place: Where it was said; the calling line when None.
        dag_id: The DAG concerned; the one being defined when None.
        task_id: The task concerned.
    """
    place = place or caller()
    return DefinitionError(
        message,
        file=place.file if place else None,
        line=place.line if place else None,
        dag_id=dag_id or _OPEN_DAG.get(),
        task_id=task_id,
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?`, or the list of what is known when nothing is near."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names)}"


def name_dag(dag_id: str | None) -> None:
    """Name a DAG in the errors raised from now on."""
    _OPEN_DAG.set(dag_id)


@contextlib.contextmanager
def speaking_from(place: Place | None) -> Iterator[None]:
    """Let everything that is said meanwhile count as said at this place."""
    token = _SPEAKER.set(place)
    try:
        yield
    finally:
        _SPEAKER.reset(token)


@contextlib.contextmanager
def naming_dag(dag_id: str | None) -> Iterator[None]:
    """Name a DAG in the errors raised meanwhile."""
    token = _OPEN_DAG.set(dag_id)
    try:
        yield
    finally:
        _OPEN_DAG.reset(token)
