"""Failures of user code: outcome, error and traceback without the frames of pubsubflow."""

import traceback
from collections.abc import Iterator

from pubsubflow.authoring.dag_files import users_text
from pubsubflow.authoring.runtime.journal import TaskLost
from pubsubflow.errors import (
    DefinitionError,
    PubsubflowError,
    ReplayMismatch,
    ResultLost,
    TaskFailed,
    TaskSkipped,
)
from pubsubflow.exit_codes import TaskExited
from pubsubflow.model.wire.messages import Outcome, TaskError
from pubsubflow.runner.log_lines import plain_text
from pubsubflow.runner.task_account import account_hint
from pubsubflow.user_frames import HIDDEN, user_frames

_MAX_MESSAGE_CHARACTERS = 2_000
MAX_TRACEBACK_CHARACTERS = 20_000


def outcome_of(error: BaseException) -> tuple[Outcome, TaskError]:
    """Return the outcome of an attempt that raised, and its error.

    It never raises, whatever the exception does when its text is made.
    """
    if isinstance(error, TaskExited) and error.__cause__ is not None:
        error = error.__cause__
    text = plain_text(lambda: users_text(str(error))).strip()
    first = text.splitlines()[0] if text else ""
    name = plain_text(lambda: type(error).__name__)
    if isinstance(error, TaskSkipped):
        return Outcome.SKIPPED, TaskError(name, first[:_MAX_MESSAGE_CHARACTERS])
    if isinstance(error, TaskLost):
        return Outcome.CANCELLED, TaskError("LeaseLost", first, final=True)
    users_part, whole = (
        user_traceback(error),
        _cut(plain_text(lambda: _formatted(error, HIDDEN[:0]))),
    )
    return Outcome.FAILED, TaskError(
        type=name,
        message=(first or name)[:_MAX_MESSAGE_CHARACTERS] + account_hint(error),
        traceback=users_part,
        full_traceback="" if whole == users_part else whole,
        final=isinstance(error, TaskFailed | DefinitionError | ReplayMismatch | ResultLost),
    )


def user_traceback(error: BaseException) -> str:
    """Return the traceback without the frames of pubsubflow and of the import system.

    A longer one than `MAX_TRACEBACK_CHARACTERS` keeps its beginning and its end.
    """
    return _cut(plain_text(lambda: _formatted(error, HIDDEN)))


def stopped_at(error: BaseException) -> str:
    """Return where user code stood when an exception from outside stopped it; empty if nowhere."""
    frames = user_frames(traceback.extract_tb(error.__traceback__))
    if not frames:
        return ""
    lines = plain_text(lambda: "".join(traceback.format_list(frames)))
    return _cut(f"Stopped here (most recent call last):\n{lines}")


def _cut(text: str) -> str:
    if len(text) <= MAX_TRACEBACK_CHARACTERS:
        return text
    half = MAX_TRACEBACK_CHARACTERS // 2
    return f"{text[:half]}\n  …\n{text[-half:]}"


def _formatted(error: BaseException, hidden: tuple[str, ...]) -> str:
    whole = traceback.TracebackException.from_exception(error)
    for part in _parts(whole, set()) if hidden else ():
        frames = user_frames(part.stack)
        # Libraries between our own frames alone explain nothing where the error is ours.
        if isinstance(error, PubsubflowError) and all(map(_is_library, frames)):
            frames = []
        part.stack = traceback.StackSummary.from_list(frames)
    return users_text("".join(whole.format()))


def _is_library(frame: traceback.FrameSummary) -> bool:
    return "/site-packages/" in frame.filename or frame.filename.startswith("<")


def _parts(
    part: traceback.TracebackException, seen: set[int]
) -> Iterator[traceback.TracebackException]:
    """Yield an exception with its causes, contexts and members of its group, each once."""
    if id(part) in seen:
        return
    seen.add(id(part))
    yield part
    for other in (part.__cause__, part.__context__, *(part.exceptions or ())):
        if other is not None:
            yield from _parts(other, seen)
