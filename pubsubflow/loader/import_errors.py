"""Import errors: one line for users with what went wrong, and where."""

import traceback

from pubsubflow.errors import DefinitionError
from pubsubflow.user_frames import user_frames

_ADVICE = "install it, move it into the DAGs folder, or name its folder in PYTHONPATH"


class ImportTimeout(BaseException):
    """The import took too long; not an Exception, so that the file does not catch it."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the import took longer than {seconds:g} s")


def describe_error(error: BaseException, root: str, file: str) -> str:
    """Return what went wrong and where, in one line.

    Args:
        error: What the file raised.
        root: The folder of the bundle, as users know it.
        file: The DAG file, relative to it.
    """
    if isinstance(error, DefinitionError) and error.file:
        return str(error)
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    if isinstance(error, ImportTimeout | DefinitionError):
        message = str(error)
    elif isinstance(error, SystemExit):
        message = f"the file called sys.exit({error.code!r}) while it was imported"
    elif isinstance(error, ModuleNotFoundError):
        message = f"ModuleNotFoundError: {error}; {_ADVICE}"
    else:
        text = str(error).strip()
        message = type(error).__name__ + (f": {text.splitlines()[0]}" if text else "")
    frames = user_frames(traceback.extract_tb(error.__traceback__))
    # The last frame in the folder: what the file calls in a library is not the user's line.
    inside = [frame for frame in frames if frame.filename.startswith(f"{root}/")]
    location = f"{inside[-1].filename}:{inside[-1].lineno}" if inside else f"{root}/{file}"
    return f"{location}: {message}"
