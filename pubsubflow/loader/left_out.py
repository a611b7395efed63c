"""Files that are left out of a bundle: why, in the errors of those that miss them."""

import re
from collections.abc import Mapping

_MISSING = re.compile(r"No module named '(?P<module>[^']+)'|directory: '(?P<file>[^']+)'")


def with_reason(error: str, skipped: Mapping[str, str]) -> str:
    """Return an import error, with the reason why what it misses is left out of the bundle.

    Args:
        error: One line.
        skipped: Path → why it is left out.
    """
    missing = _MISSING.search(error)
    if missing is None:
        return error
    name = missing["module"] or missing["file"]
    stem = name.replace(".", "/")
    for path, reason in skipped.items():
        plain = path.removesuffix(".py")
        if stem.endswith(plain) or plain.endswith(f"/{stem}") or name.endswith(path):
            return f"{error} ({path} is left out: {reason})"
    return error
