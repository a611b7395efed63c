"""How an import that failed is told to users."""

import traceback
from pathlib import Path

import pubsubflow
from pubsubflow.errors import DefinitionError

MAX_TRACEBACK_CHARACTERS = 20_000
_PACKAGE = Path(pubsubflow.__file__).parent
_OWN = tuple(f"{_PACKAGE / part}/" for part in ("authoring", "loader", "model", "runner"))


class ImportTookTooLong(BaseException):
    """The time limit is over; no Exception, lest the file catches it."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the import took longer than {seconds:g} s")


def one_line(error: BaseException, root: str, file: str) -> str:
    """Return what went wrong and where, in one line.

    Args:
        error: What the file raised.
        root: The DAGs folder.
        file: The DAG file, relative to it.
    """
    if isinstance(error, DefinitionError) and error.file:
        return str(error)
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    if isinstance(error, ImportTookTooLong | DefinitionError):
        message = str(error)
    elif isinstance(error, SystemExit):
        message = f"the file called sys.exit({error.code!r}) while it was imported"
    else:
        text = str(error).strip()
        message = type(error).__name__ + (f": {text.splitlines()[0]}" if text else "")
    frames = _user_frames(traceback.extract_tb(error.__traceback__))
    below = [frame for frame in frames if frame.filename.startswith(f"{root}/")]
    place = f"{below[-1].filename}:{below[-1].lineno}" if below else f"{root}/{file}"
    return f"{place}: {message}"


def user_traceback(error: BaseException) -> str:
    """Return the traceback without our frames and those of the import system."""
    whole = traceback.TracebackException.from_exception(error)
    waiting = [whole]
    seen: set[int] = set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        part.stack[:] = _user_frames(part.stack)
        waiting += [other for other in (part.__cause__, part.__context__) if other]
    text = "".join(whole.format())
    if len(text) > MAX_TRACEBACK_CHARACTERS:
        half = MAX_TRACEBACK_CHARACTERS // 2
        text = f"{text[:half]}\n  …\n{text[-half:]}"
    return text


def _user_frames(stack: traceback.StackSummary) -> list[traceback.FrameSummary]:
    return [frame for frame in stack if not frame.filename.startswith(("<frozen", *_OWN))]
