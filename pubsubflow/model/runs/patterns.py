"""Regular expressions in the types of params, matched in time linear in the text.

Python's own may take exponential time for a text that an outsider sent, in the daemon.
"""

from typing import Any

from pubsubflow.errors import DefinitionError
from pubsubflow.model.lazy_import import lazy_module

# Its interpreter has an engine of that kind; it takes long to import.
_cel = lazy_module("cel")


def matches_somewhere(pattern: str, text: str) -> bool:
    """Return whether a part of a text matches.

    Raises:
        DefinitionError: The engine does not take the pattern; see `check_pattern`.
    """
    try:
        found: Any = _cel.compile("text.matches(pattern)").execute(
            {"text": text, "pattern": pattern}
        )
    except RuntimeError as error:
        reason = str(error).rpartition("error: ")[2].split(". Check ", 1)[0]
        raise DefinitionError(
            f"the pattern {pattern!r} cannot be used: {' '.join(reason.split())}; write it without "
            "look-around and back-references"
        ) from error
    return found is True


def check_pattern(pattern: str) -> None:
    """Check a pattern where it is written.

    Raises:
        DefinitionError: It is not a regular expression, or not one that takes linear time.
    """
    matches_somewhere(pattern, "")
