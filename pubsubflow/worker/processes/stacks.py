"""Stacks that the interpreter writes when Python cannot: the user's part, innermost first."""

import re
import sysconfig

from pubsubflow.user_frames import HIDDEN

_FRAME = re.compile(r'File "(?P<file>.+)", line (?P<line>\d+|\?\?\?) in (?P<name>.+)')
_LIBRARIES = tuple({f"{sysconfig.get_path(name)}/" for name in ("stdlib", "purelib", "platlib")})


def user_stack(text: str) -> list[str]:
    """Return the frames of the thread that was interrupted, without pubsubflow's own.

    Args:
        text: What faulthandler wrote.

    Returns:
        `file:line in function`, innermost first.
    """
    threads = re.split(r"\n(?=(?:Current t|T)hread )", f"\n{text}")
    current = [part for part in threads if part.lstrip().startswith("Current thread")]
    frames = [
        (found["file"], f"{found['file']}:{found['line']} in {found['name']}")
        for line in (current or threads)[-1].splitlines()
        if (found := _FRAME.search(line)) and not found["file"].startswith(HIDDEN)
    ]
    return [place for _, place in frames]


def user_place(frames: list[str]) -> str:
    """Return the innermost frame that is not a library's; of libraries alone the innermost one."""
    own = [frame for frame in frames if not frame.startswith(_LIBRARIES)]
    return (own or frames or ["an unknown place"])[0]
