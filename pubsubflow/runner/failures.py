"""From an exception in user code to what users read."""

import traceback
from collections.abc import Iterator
from pathlib import Path

import pubsubflow
from pubsubflow.authoring.runtime.journal import TaskLost
from pubsubflow.errors import DefinitionError, ReplayMismatch, TaskFailed, TaskSkipped
from pubsubflow.model.wire.messages import Outcome, TaskError

_MAX_MESSAGE_CHARACTERS = 2_000
_MAX_TRACE_CHARACTERS = 20_000
_HERE = Path(pubsubflow.__file__).parent
_OURS = (*(f"{_HERE / part}/" for part in ("runner", "authoring")), "<frozen importlib")


def outcome_of(error: BaseException) -> tuple[Outcome, TaskError]:
    """Say how an attempt that raised has ended, and why."""
    text = str(error).strip()
    first = text.splitlines()[0] if text else ""
    name = type(error).__name__
    if isinstance(error, TaskSkipped):
        return Outcome.SKIPPED, TaskError(name, first[:_MAX_MESSAGE_CHARACTERS])
    if isinstance(error, TaskLost):
        return Outcome.CANCELLED, TaskError("LeaseLost", first, final=True)
    return Outcome.FAILED, TaskError(
        type=name,
        message=(first or name)[:_MAX_MESSAGE_CHARACTERS],
        traceback=users_traceback(error),
        final=isinstance(error, TaskFailed | DefinitionError | ReplayMismatch),
    )


def users_traceback(error: BaseException) -> str:
    """Return the traceback without our own frames."""
    told = traceback.TracebackException.from_exception(error)
    for part in _parts(told, set()):
        frames = [frame for frame in part.stack if not frame.filename.startswith(_OURS)]
        part.stack = traceback.StackSummary.from_list(frames)
    text = "".join(told.format())
    if len(text) > _MAX_TRACE_CHARACTERS:
        text = "…\n" + text[-_MAX_TRACE_CHARACTERS:]
    return text.encode(errors="backslashreplace").decode()


def _parts(
    told: traceback.TracebackException, seen: set[int]
) -> Iterator[traceback.TracebackException]:
    if id(told) in seen:
        return
    seen.add(id(told))
    yield told
    for other in (told.__cause__, told.__context__, *(told.exceptions or ())):
        if other is not None:
            yield from _parts(other, seen)
