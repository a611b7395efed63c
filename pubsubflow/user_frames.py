"""Frames of user code in a stack; the daemon shows them, too."""

import traceback
from pathlib import Path

_PACKAGE = Path(__file__).parent
_OURS = ("authoring", "hooks", "loader", "model", "operators", "runner", "testing")
HIDDEN = (
    *(f"{_PACKAGE / part}/" for part in _OURS),
    "<frozen importlib",
)


def user_frames(stack: traceback.StackSummary) -> list[traceback.FrameSummary]:
    """Return the frames of user code and of the libraries that it calls."""
    return [frame for frame in stack if not frame.filename.startswith(HIDDEN)]
